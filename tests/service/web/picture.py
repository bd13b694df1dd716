"""Draw the README's picture of the page: ``python -m tests.service.web.picture BUNDLE [BUNDLE]``.

A real server over these bundles, the first of which answers and the second beside it; make what is drawn with
``make serve`` or ``make demo``.
"""

from __future__ import annotations

import argparse
import shutil
from io import BytesIO
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image

from service.bundle.reader import read_manifest
from tests.service.serving import running
from tests.service.web.browser import NO_CHROMIUM, launched, opened

PICTURE = Path(__file__).parents[3] / ".assets" / "playground.png"
# A point of the test split, as in the Makefile: no model has seen it.
QUERY = "python3-requests-ntlm Adds support for NTLM authentication to the requests library"
K = 5
# Before the answer that is drawn: the first ones find caches cold.
WARM_UP = 20
COLOURS = 64
SIZE = {"width": 960, "height": 800}


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    bundles: list[Path] = parser.parse_args().bundles
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit(NO_CHROMIUM)
    names = [read_manifest(path).name for path in bundles]
    state = dict(zip(("model", "compare"), names, strict=False)) | {"query": QUERY, "k": K}
    arguments = [part for path in bundles for part in ("--bundle", path)]
    with (
        running(*arguments) as server,
        launched(chromium) as browser,
        opened(browser, server.url, viewport=SIZE) as playground,
    ):
        playground.open(f"#{urlencode(state)}")
        playground.wait_for_labels(K)
        for key in ("Space", "Backspace") * (WARM_UP // 2):
            playground.query.press("End")
            playground.query.press(key)
            playground.wait_for_labels(K)
        playground.page.locator("h1").click()
        drawn = playground.page.screenshot(animations="disabled", full_page=True)
    PICTURE.parent.mkdir(exist_ok=True)
    Image.open(BytesIO(drawn)).quantize(COLOURS).save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
