"""Ways to change a bundle on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle import Manifest, content_version, file_entry, layout

ArrayChange = Callable[[NDArray[Any]], NDArray[Any]]


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = path / layout.MANIFEST
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def sign(path: Path) -> None:
    """Give the manifest the version of its own, possibly wrong, entries."""
    manifest = Manifest.model_validate_json((path / layout.MANIFEST).read_bytes())
    version = content_version(
        manifest.input, manifest.method, manifest.files, manifest.calibration, manifest.propensity
    )
    change_manifest(path, lambda content: content.update(version=version))


def change_entry(path: Path, name: str, **fields: object) -> None:
    change_manifest(path, lambda content: content["files"][name].update(fields))
    sign(path)


def replace_file(path: Path, name: str, content: bytes) -> None:
    """New bytes with the right size and checksum."""
    (path / name).write_bytes(content)
    unnamed = path / "measured"
    unnamed.write_bytes(content)
    entry = file_entry(unnamed)
    unnamed.unlink()
    change_entry(path, name, size=entry.size, sha256=entry.sha256)


def change_array(path: Path, name: str, change: ArrayChange) -> None:
    np.save(path / name, change(np.load(path / name)))
