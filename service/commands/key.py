"""``xmc-serve key``: make a key for a client."""

from __future__ import annotations

import argparse

from service.commands.arguments import OK, Commands
from service.settings import variable


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "key",
        help="make a key for a client",
        description=f"Make a key: print it, once, and the line for the file that {variable('api_keys_file')} or "
        f"{variable('admin_keys_file')} names.",
    )
    parser.add_argument("name", metavar="NAME", help="of the key, for logs: letters, digits, '.', '_' and '-'")
    parser.add_argument(
        "--read-only", action="store_true", help="it may read models and metrics, and not ask for labels"
    )
    parser.add_argument("--rate", metavar="N", help="most queries a second in the long run (default: no limit)")
    parser.add_argument("--burst", metavar="N", help="most queries at once after a pause (default: one second's)")
    parser.set_defaults(command=_key)


def _key(chosen: argparse.Namespace) -> int:
    from service.access.keys import line_of, new_secret

    options = ["read-only"] if chosen.read_only else []
    options += [f"{name}={value}" for name in ("rate", "burst") if (value := getattr(chosen, name)) is not None]
    secret = new_secret()
    line = line_of(chosen.name, secret, options)
    print(f"the key, which is shown this once: {secret}", f"the line for the file of keys:\n{line}", sep="\n")
    return OK
