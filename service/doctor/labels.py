"""Labels that change: the folder for their journals, and the journals that are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok
from service.doctor.places import why_not_writable
from service.errors import BundleError
from service.settings import Settings, variable

WRITABLE = "make it a folder that the server's user may write to: a volume of this replica"


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    settings = context.settings
    for folder in _folders(settings):
        if (reason := why_not_writable(folder)) is None:
            yield ok(f"folder {folder}", "may be written to")
        elif settings.labels_dir is not None:
            found = f"expected a folder that may be written to, found: {reason}"
            yield fault(f"{variable('labels_dir')} {folder}", found, WRITABLE)
        else:
            found = f"cannot be written to, so that changes of labels are refused with 507: {reason}"
            yield note(f"folder {folder}", found, f"set {variable('labels_dir')} if labels shall change")
    yield from _journals(settings)


def _folders(settings: Settings) -> list[Path]:
    """Where journals would be written; nowhere without administrators, who alone change labels."""
    if settings.labels_dir is not None:
        return [settings.labels_dir]
    if settings.admin_keys_file is None:
        return []
    return list(dict.fromkeys(path.resolve().parent for path in settings.bundles))


def _journals(settings: Settings) -> Iterator[Finding]:
    """Journals of the bundles that can be read."""
    from service.bundle.reader import read_manifest
    from service.live.journal import journal_name, read_journal

    for path in settings.bundles:
        with suppress(BundleError):  # which the check of bundles tells
            name = read_manifest(path, settings.bundle_keys).name
            journal = (settings.labels_dir or path.resolve().parent) / journal_name(name)
            try:
                changes = read_journal(journal, name)
            except BundleError as error:
                yield fault(f"journal of {name}", str(error), "bring it back from a copy, or mend or remove the line")
            else:
                found = (
                    f"{len(changes.disabled)} disabled, {len(changes.added)} added" if journal.exists() else "none yet"
                )
                yield ok(f"journal of {name}", found)
