"""Describing files: what a writer puts into a manifest, and what the reader compares with.

Both sides use the same two functions, so a manifest that was written through them is accepted by the reader.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.bundle.layout import MANIFEST
from service.bundle.manifest import (
    CalibrationSection,
    ChangesSection,
    FeaturesInput,
    FileEntry,
    Manifest,
    MethodSection,
    PropensitySection,
    RerankSection,
    TextInput,
)
from service.bundle.shards import ShardEntry

VERSION_LENGTH = 12


def file_entry(path: Path) -> FileEntry:
    """Measure one file for the manifest; an ``.npy`` file's dtype and shape are read from its header.

    Raises:
        OSError: the file cannot be read.
        ValueError: an ``.npy`` file is not a plain array.
    """
    size, digest = path.stat().st_size, sha256_of(path)
    if path.suffix != ".npy":
        return FileEntry(size=size, sha256=digest)
    array = map_array(path)
    return FileEntry(size=size, sha256=digest, dtype=array.dtype.name, shape=array.shape)


def read_whole(path: Path, limit: int) -> bytes:
    """All bytes of a file, which is no link, pipe or device.

    Raises:
        OSError: it cannot be read, is something else than a file, or has more bytes than the limit.
    """
    # Not waiting for a pipe's other end: what was opened is looked at first.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path.name} is no regular file")
        if status.st_size > limit:
            raise OSError(f"{path.name} has {status.st_size} bytes, more than {limit}")
        return stream.read(limit)


def sha256_of(path: Path) -> str:
    """The file's SHA-256 in lower-case hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def content_version(
    input_section: TextInput | FeaturesInput,
    method: MethodSection,
    files: Mapping[str, FileEntry],
    calibration: CalibrationSection | None = None,
    propensity: PropensitySection | None = None,
    rerank: RerankSection | None = None,
    groups: Mapping[str, int] | None = None,
    changes: ChangesSection | None = None,
    shards: Sequence[ShardEntry] = (),
) -> str:
    """Digest of everything that decides an answer: the sections on input, method, scores and labels, and every file.

    Those of shards among them, by the digests of their manifests.

    Name, measurements and golden answers are left out: the same model exported twice has the same version. Sections
    that a bundle does not have leave no trace, so that older bundles keep their version.

    Returns:
        The first 12 hexadecimal digits of a SHA-256 over canonical JSON.
    """
    content = {
        "input": input_section.model_dump(mode="json"),
        # Without the fields that say nothing: a new optional one leaves the versions of old bundles as they are.
        # A curve of latencies is never the same twice.
        "method": method.model_dump(mode="json", exclude_none=True, exclude={"index": {"curve"}}),
        "files": {name: entry.model_dump(mode="json") for name, entry in files.items()},
    }
    optional = {"rerank": rerank, "calibration": calibration, "propensity": propensity, "changes": changes}
    content |= {name: section.model_dump(mode="json") for name, section in optional.items() if section is not None}
    if groups:
        content["groups"] = dict(groups)
    if shards:
        content["shards"] = {shard.folder: shard.model_dump(mode="json") for shard in shards}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:VERSION_LENGTH]


def version_of(manifest: Manifest) -> str:
    """`content_version` of all that a manifest says, whatever version it has."""
    return content_version(
        manifest.input,
        manifest.method,
        manifest.files,
        manifest.calibration,
        manifest.propensity,
        manifest.rerank,
        manifest.groups,
        manifest.changes,
        manifest.shards,
    )


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json``, the last file of a bundle."""
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")


def map_array(path: Path) -> NDArray[Any]:
    """Map an ``.npy`` file read-only; nothing is read before it is used, and pickled objects are refused.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no ``.npy`` file, holds objects, or is shorter or longer than its header says.
    """
    array = np.lib.format.open_memmap(path, mode="r")
    expected_size = array.offset + array.nbytes
    if path.stat().st_size != expected_size:
        raise ValueError(f"{path.stat().st_size} bytes where its header says {expected_size}")
    return array.view(np.ndarray)


def map_bytes(path: Path) -> NDArray[np.uint8]:
    """Map a file's bytes read-only."""
    if path.stat().st_size == 0:  # the operating system maps no empty files
        return np.empty(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
