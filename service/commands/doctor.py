"""``xmc-serve doctor``: what would keep a server from starting or working."""

from __future__ import annotations

import argparse
import os

from service.commands.arguments import FAILED, OK, Commands, add_settings, given_settings


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "doctor",
        help="say what would keep a server from starting or working",
        description="Look at what a server with these settings would find here, and say what is wrong and what to do.",
    )
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(command=_doctor)


def _doctor(chosen: argparse.Namespace) -> int:
    from service.doctor.context import Context
    from service.doctor.examination import examine, is_healthy
    from service.doctor.report import as_json, as_table

    examined = examine(Context.of(given_settings(chosen), os.environ))
    print(as_json(examined) if chosen.json else as_table(examined), end="")
    return OK if is_healthy(examined) else FAILED
