"""Bundles: there, whole at a glance, and to be read by this user. Contents are for ``xmc-serve check``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from service.doctor.context import Context
from service.doctor.findings import Finding, fault, note, ok
from service.errors import BundleError
from service.settings import flag, variable

if TYPE_CHECKING:
    from service.bundle import Manifest


def look(context: Context) -> Iterator[Finding]:
    """See `CHECKS`."""
    from service.bundle.reader import read_manifest

    settings = context.settings
    if not settings.bundles:
        yield note(variable("bundles"), "none is named", f"run needs one: {flag('bundles')} or {variable('bundles')}")
    first: dict[str, Path] = {}
    for path in settings.bundles:
        try:
            manifest = read_manifest(path, settings.bundle_keys)
        except BundleError as error:
            advice = "mount or export it again where the server's user may read it; xmc-serve check says more"
            yield fault(str(path), str(error), advice)
            continue
        identity = f"{manifest.name}:{manifest.version}"
        if first.setdefault(identity, path) is not path:
            yield fault(str(path), f"{identity} is given twice, first as {first[identity]}", "name it once")
        yield _files(path, manifest)
        if settings.device == "cuda" and manifest.precision == "int8":
            found = "expected weights in fp32 or fp16 for device cuda, found int8, whose products run on the CPU alone"
            yield fault(str(path), found, "export it with --precision fp16, or set the device to auto or cpu")


def _files(path: Path, manifest: Manifest) -> Finding:
    """Whether the files of the manifest are there, of its sizes, and may be read."""
    size = sum(entry.size for entry in manifest.files.values())
    wrong = [
        f"{name} {reason}"
        for name, entry in sorted(manifest.files.items())
        if (reason := _fault(path / name, entry.size))
    ]
    if wrong:
        advice = f"copy the bundle again, or let user {os.geteuid()} read it; xmc-serve check {path} says more"
        return fault(str(path), f"expected {len(manifest.files)} files to read, found: {'; '.join(wrong)}", advice)
    found = f"{manifest.name}:{manifest.version}, {manifest.method.name}, {manifest.label_count:,} labels"
    return ok(str(path), f"{found}, {size / 1e6:,.1f} MB{', signed' if (path / 'manifest.sig').exists() else ''}")


def _fault(file: Path, size: int) -> str | None:
    if not file.is_file():
        return "is not there"
    if file.stat().st_size != size:
        return f"has {file.stat().st_size} bytes instead of {size}"
    return None if os.access(file, os.R_OK) else "may not be read"
