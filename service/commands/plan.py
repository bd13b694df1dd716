"""``xmc-serve plan``: what a service will need."""

from __future__ import annotations

import argparse

from service.commands.arguments import OK, Commands
from service.planning.options import add_options


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "plan",
        help="tell what a service will need",
        description="Print disk, memory, latency and pods of a model that need not exist yet, from measured constants.",
    )
    add_options(parser)
    parser.set_defaults(command=_plan)


def _plan(chosen: argparse.Namespace) -> int:
    from service.planning.command import answer

    print(answer(chosen), end="")
    return OK
