"""A browser, and services for it over tiny bundles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from service.bundle.labels import write_labels
from tests.bundles import Spec, resign, write_bundle
from tests.service.serving import in_this_process
from tests.service.web.browser import NO_CHROMIUM, Playground, launched, opened

LABELS = 40
GROUPS = ("colours", "shapes")
NASTY = "<img src=x onerror=alert(1)> & <b>'\"</b>"
NASTY_LABELS = (NASTY, "<script>alert(2)</script>", "a" * 200)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        # CI installs it, so there its absence is an error.
        (pytest.fail if "CI" in os.environ else pytest.skip)(NO_CHROMIUM)
    with launched(chromium) as browser:
        yield browser


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that compare, of which the first has probabilities and texts that try things; and one for features."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder / "tags", Spec(name="tags", calibrated=True, groups=GROUPS, label_count=LABELS))
    texts = [*NASTY_LABELS, *(f"Étiquette {row}" for row in range(len(NASTY_LABELS), LABELS))]
    write_labels(folder / "tags", [f"label-{row:02d}" for row in range(LABELS)], texts)
    resign(folder / "tags")
    write_bundle(folder / "titles", Spec(name="titles", method="unidec", label_count=LABELS))
    write_bundle(folder / "vectors", Spec(name="vectors", input="features", has_label_texts=False))
    return folder


@pytest.fixture(scope="module")
def url(bundles: Path) -> Iterator[str]:
    with in_this_process(*(bundles / name for name in ("tags", "titles", "vectors"))) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def playground(browser: Browser, url: str) -> Iterator[Playground]:
    with opened(browser, url) as playground:
        yield playground
        playground.check()
