"""``xmc-serve fetch``: a bundle from an archive at an address."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.commands.arguments import OK, Commands, count
from service.kernels import bring


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "fetch",
        help="fetch a bundle",
        description="Fetch a tar archive of a bundle, verify every file, and put the bundle in its place: whole, or "
        "not at all. Proxies are those of the environment.",
    )
    parser.add_argument("url", metavar="URL", help="of the archive: http://, https:// or file://")
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="that becomes the bundle")
    parser.add_argument(
        "--sha256",
        metavar="DIGEST",
        help="of the bundle's manifest.json; nothing is fetched where FOLDER has that bundle already",
    )
    parser.add_argument(
        "--key", type=Path, action="append", default=[], metavar="FILE", help="public key that must have signed it"
    )
    parser.add_argument(
        "--max-bytes", type=count, default=1 << 36, metavar="N", help="most bytes to take (default: 2^36, 69 GB)"
    )
    parser.set_defaults(command=_fetch)


def _fetch(chosen: argparse.Namespace) -> int:
    bring()

    from service.fetching import Order, fetch

    found = fetch(Order(chosen.url, chosen.into, chosen.sha256, tuple(chosen.key), chosen.max_bytes))
    manifest = found.manifest
    print(f"{manifest.name}:{manifest.version} is in {chosen.into}{'' if found.is_new else ' already'}")
    print(f"  manifest   sha256 {found.sha256}")
    print(f"  signature  {'good' if chosen.key else 'not looked at: --key'}")
    return OK
