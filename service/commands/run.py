"""``xmc-serve run``: serve bundles until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import logging
import os
import resource

from service.commands.arguments import Commands, add_settings, given_settings
from service.errors import SettingsError
from service.kernels import bring
from service.settings import flag, load_settings, variable
from service.threads import limit_threads

MOST_OPEN_FILES = 1 << 20


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("run", help="serve bundles", description="Serve bundles until SIGTERM or SIGINT.")
    add_settings(parser)
    parser.set_defaults(command=_run)


def _run(chosen: argparse.Namespace) -> int:
    settings = load_settings(given_settings(chosen), os.environ)
    if not settings.bundles:
        raise SettingsError(f"no bundle to serve: expected {flag('bundles')} or {variable('bundles')}")
    limit_threads(settings.batch_threads)
    _allow_open_files()
    # Its library would write lines of its own among the log's.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    bring()

    from service.models.launch import Order, launch

    # Before the rest is imported, which takes most of a second.
    workers = [launch(Order(path, settings)) for path in settings.bundles]

    from service.http.server import serve
    from service.logs import configure_logging

    log = configure_logging(settings.log_format)
    code = serve(settings, workers, lambda: log.lost)
    # Not sys.exit: a bundle that is still being verified on its thread must not hold up, or crash, the way out.
    logging.shutdown()
    os._exit(code)


def _allow_open_files() -> None:
    """Raise the soft limit, which many systems set at 1,024: every connection is a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
