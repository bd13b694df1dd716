"""The command ``xmc-serve``; what it can do is in ``service/commands/``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from service.commands import bench, check, doctor, fetch, key, plan, run
from service.commands.arguments import FAILED, WRONG_USE
from service.errors import SettingsError, XmcError

COMMANDS = (run, check, fetch, bench, key, doctor, plan)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line; the process's own when None.

    Returns:
        Exit code: 0 done, 1 failed, 2 wrong use or bad settings.
    """
    chosen = _parser().parse_args(arguments)
    try:
        code: int = chosen.command(chosen)
        return code
    except SettingsError as error:
        return _fail(error, WRONG_USE)
    except XmcError as error:
        return _fail(error, FAILED)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xmc-serve", description="Answer top-k label queries over HTTP.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser


def _version() -> str:
    """The installed one's; the sources alone have none, and `doctor` must be able to say so."""
    try:
        return version("xmcserve")
    except PackageNotFoundError:
        return "(sources that are not installed)"


def _fail(error: Exception, code: int) -> int:
    print(f"xmc-serve: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
