"""Opening a bundle: everything is verified before anything is used, and the first fault ends it with one sentence.

Order of the checks: the manifest's signature where keys are given; then, cheapest first, schema version, manifest,
names of files, kinds and sizes, checksums, array headers, array contents. Then all arrays are memory-mapped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.bundle import layout
from service.bundle.contents import check_contents
from service.bundle.files import map_array, map_bytes, read_whole, sha256_of, version_of
from service.bundle.labels import LabelTable
from service.bundle.layout import ArraySpec
from service.bundle.line_files import check_labels, check_row_texts, check_slots
from service.bundle.manifest import SCHEMA_VERSION, FileEntry, Manifest
from service.bundle.row_texts import RowTexts
from service.bundle.shards import row_count
from service.bundle.signature import SIGNATURE_BYTES, check_signature
from service.errors import BundleError
from service.processors import at_once

# Golden queries and a table of files; far more than any bundle needs.
MANIFEST_BYTES = 1 << 24


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes:
        path: its folder.
        manifest: what it says about itself.
        arrays: every array by file name, memory-mapped and read-only.
        labels: ids and texts by label row.
        row_texts: of DECLARE's distinct training rows; None where the bundle carries none.
    """

    path: Path
    manifest: Manifest
    arrays: Mapping[str, NDArray[Any]]
    labels: LabelTable
    row_texts: RowTexts | None = None

    def file(self, name: str) -> Path:
        """Where a file of the bundle lies."""
        return self.path / name


def open_bundle(path: Path, keys: Sequence[Path] = ()) -> Bundle:
    """Open a finished bundle.

    Args:
        path: its folder.
        keys: files of public keys, one of which must have signed it; without any, no signature is looked at.

    Raises:
        BundleError: it is not there, not signed by one of the keys, damaged, of another schema version, or export has
            not verified it; the sentence names the file, what was expected and what was found.
    """
    manifest = read_manifest(path, keys)
    if manifest.parity is None or not manifest.golden:
        raise BundleError(f"{path / layout.MANIFEST}: expected parity and golden answers, found a draft without them")
    return load_bundle(path, manifest)


def load_bundle(path: Path, manifest: Manifest) -> Bundle:
    """Verify and map the files in ``path`` against a manifest, which need not be written there yet (a draft).

    Raises:
        BundleError: as ``open_bundle``.
    """
    try:
        _check_version(manifest)
        _check_names(path, manifest)
        _check_files(path, manifest.files)
        arrays = _map_arrays(path, manifest)
        check_contents(manifest, arrays)
        labels = _map_labels(path, manifest, arrays)
        row_texts = _map_row_texts(path, manifest, arrays)
    except BundleError as error:
        raise BundleError(f"bundle {path}: {error}") from error
    except OSError as error:
        raise BundleError(f"bundle {path}: expected readable files, found: {error}") from error
    return Bundle(path, manifest, MappingProxyType(arrays), labels, row_texts)


def read_manifest(path: Path, keys: Sequence[Path] = ()) -> Manifest:
    """Read ``manifest.json`` of the bundle folder ``path``.

    Raises:
        BundleError: it is missing, not signed by one of the keys, not JSON, of another schema version, or has wrong or
            unknown keys.
    """
    file = path / layout.MANIFEST
    try:
        raw = read_whole(file, MANIFEST_BYTES)
    except OSError as error:
        raise BundleError(f"bundle {path}: expected a folder with {layout.MANIFEST}, found: {error}") from error
    if keys:
        _check_signature(path, raw, keys)
    try:
        version = _schema_version(raw)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file}: expected a JSON object, found: {error}") from error
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(f"{file}: expected schema_version {SCHEMA_VERSION}, found {version!r}")
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        raise BundleError(f"{file}: {_first_fault(error)}") from error


def _check_signature(path: Path, manifest: bytes, keys: Sequence[Path]) -> None:
    """Before a byte of the manifest means anything."""
    try:
        check_signature(manifest, read_whole(path / layout.SIGNATURE, SIGNATURE_BYTES), keys)
    except OSError as error:
        raise BundleError(f"bundle {path}: expected a signature in {layout.SIGNATURE}, found: {error}") from error
    except BundleError as error:
        raise BundleError(f"bundle {path}: {error}") from error


def _schema_version(raw: bytes) -> object:
    content = json.loads(raw)
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}")
    return content.get("schema_version")


def _first_fault(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in faults[0]["loc"]) or "manifest"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{where}: {faults[0]['msg']}{more}"


def _check_version(manifest: Manifest) -> None:
    expected = version_of(manifest)
    if manifest.version != expected:
        raise BundleError(f"{layout.MANIFEST}: expected version {expected} by its contents, found {manifest.version}")


def _check_names(path: Path, manifest: Manifest) -> None:
    expected = set(layout.expected_files(manifest))
    listed = set(manifest.files)
    if missing := expected - listed:
        raise BundleError(f"{layout.MANIFEST}: expected an entry for {_names(missing)}, found none")
    if unknown := listed - expected:
        raise BundleError(f"{layout.MANIFEST}: expected only files of this method and input, found {_names(unknown)}")
    # A draft's manifest is not written yet, and a manifest is no member of its own table.
    with os.scandir(path) as entries:
        present = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    if missing := expected - set(present):
        raise BundleError(f"expected file {_names(missing)}, found none")
    if additional := set(present) - expected - {layout.MANIFEST, layout.SIGNATURE}:
        raise BundleError(f"expected only the files of its manifest, found {_names(additional)} as well")
    if irregular := {name for name, is_regular in present.items() if not is_regular}:
        raise BundleError(f"expected regular files, found a link or folder: {_names(irregular)}")


def _check_files(path: Path, files: Mapping[str, FileEntry]) -> None:
    for name, entry in files.items():
        size = (path / name).stat().st_size
        if size != entry.size:
            raise BundleError(f"{name}: expected {entry.size} bytes, found {size}")
    digests = at_once(sha256_of, [path / name for name in files])
    for (name, entry), digest in zip(files.items(), digests, strict=True):
        if digest != entry.sha256:
            raise BundleError(f"{name}: expected sha256 {entry.sha256}, found {digest}")


def _map_arrays(path: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    arrays = {}
    for name, spec in layout.expected_files(manifest).items():
        if spec is None:
            _check_is_no_array(name, manifest.files[name])
            continue
        try:
            array = map_array(path / name)
        except ValueError as error:
            raise BundleError(f"{name}: expected a plain array, found: {error}") from error
        _check_array(name, array, manifest.files[name], spec)
        arrays[name] = array
    return arrays


def _check_is_no_array(name: str, entry: FileEntry) -> None:
    if entry.dtype is not None or entry.shape is not None:
        raise BundleError(
            f"{layout.MANIFEST}: {name} is no array: expected no dtype and shape, found {entry.dtype} {entry.shape}"
        )


def _check_array(name: str, array: NDArray[Any], entry: FileEntry, spec: ArraySpec) -> None:
    if not array.flags.c_contiguous or not array.dtype.isnative:
        raise BundleError(
            f"{name}: expected a little-endian array in C order, found {array.dtype.str} laid out otherwise"
        )
    if array.dtype.name not in spec.dtypes:
        raise BundleError(f"{name}: expected dtype {' or '.join(spec.dtypes)}, found {array.dtype.name}")
    if len(array.shape) != len(spec.shape) or any(
        wanted not in (None, found) for wanted, found in zip(spec.shape, array.shape, strict=True)
    ):
        wanted_shape = ", ".join("any" if size is None else str(size) for size in spec.shape)
        raise BundleError(f"{name}: expected shape ({wanted_shape}), found {array.shape}")
    if (entry.dtype, entry.shape) != (array.dtype.name, array.shape):
        raise BundleError(
            f"{name}: expected {entry.dtype} {entry.shape} by the manifest, found {array.dtype.name} {array.shape}"
        )


def _map_labels(path: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> LabelTable:
    lines: NDArray[np.uint8] = map_bytes(path / layout.LABELS)
    offsets = arrays[layout.LABEL_OFFSETS]
    check_labels(lines, offsets, manifest.has_label_texts)
    slots = arrays.get(layout.LABEL_SLOTS)
    if slots is not None:
        check_slots(lines, offsets, slots)
    return LabelTable(lines, offsets, slots)


def _map_row_texts(path: Path, manifest: Manifest, arrays: Mapping[str, NDArray[Any]]) -> RowTexts | None:
    offsets = arrays.get(layout.DECLARE_TEXT_OFFSETS)
    if offsets is None:
        return None
    lines: NDArray[np.uint8] = map_bytes(path / layout.DECLARE_TEXTS)
    rows = row_count(manifest.shards) if manifest.shards else arrays[layout.DECLARE_VOTES_INDPTR].size - 1
    check_row_texts(lines, offsets, rows)
    return RowTexts(lines, offsets)


def _names(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))
