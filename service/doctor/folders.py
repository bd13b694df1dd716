"""Folders: of models, of the prediction log, for temporary files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok
from service.doctor.places import nearest_there, why_not_writable
from service.settings import variable


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    settings = context.settings
    yield _user(os.geteuid())
    if settings.models_dir is not None:
        yield _listed(settings.models_dir)
    if settings.prediction_log is not None:
        yield _written(settings.prediction_log)
    yield _temporary()


def _user(user: int) -> Finding:
    if user:
        return ok("user", str(user))
    return note("user", "root, who may read and write nearly everywhere", "look as the user that the server has")


def _listed(folder: Path) -> Finding:
    subject = f"{variable('models_dir')} {folder}"
    try:
        count = sum(entry.is_dir() for entry in folder.iterdir())
    except OSError as error:
        found = f"expected a folder that may be listed, found: {error.strerror}"
        return fault(subject, found, "mount it where the server's user may read it, or unset the variable")
    return ok(subject, f"folders in it: {count}")


def _written(folder: Path) -> Finding:
    """A folder that a server makes if it is not there."""
    subject = f"{variable('prediction_log')} {folder}"
    place = nearest_there(folder)
    if (reason := why_not_writable(place)) is not None:
        found = f"expected a folder that may be written to, found: {place}: {reason}"
        return fault(subject, found, "name a folder that the server's user may write to, with room, or unset it")
    return ok(subject, "may be written to" if place == folder else f"is made at the start in {place}")


def _temporary() -> Finding:
    try:
        return ok("temporary files", tempfile.gettempdir())
    except FileNotFoundError as error:
        return fault("temporary files", str(error), "mount a folder to write to at /tmp: --tmpfs /tmp, or an emptyDir")
