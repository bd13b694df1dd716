"""Write the files that are made of rules and panels.

python -m service.monitoring [ROOT]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from service.monitoring.files import files


def main() -> None:
    """Write them."""
    parser = argparse.ArgumentParser(prog="python -m service.monitoring", description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, nargs="?", default=Path(), help="the project's root (default: here)")
    root = parser.parse_args().root
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
