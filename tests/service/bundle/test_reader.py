"""Good bundles open as they were written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.bundle import Manifest, layout, load_bundle, open_bundle
from service.bundle.reader import read_manifest
from service.errors import BundleError
from tests.bundles import INPUT_KINDS, METHODS, write_manifest

Copy = Callable[..., Path]


@pytest.mark.parametrize("kind", INPUT_KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_a_good_bundle_opens_as_it_was_written(copy: Copy, method: str, kind: str) -> None:
    path = copy(method=method, input=kind)
    bundle = open_bundle(path)
    assert bundle.manifest == Manifest.model_validate_json((path / layout.MANIFEST).read_bytes())
    assert len(bundle.labels) == 40
    assert bundle.labels.id(39) == "label-39"
    assert bundle.labels.text(7) == "Étiquette 7"
    assert {name for name in bundle.manifest.files if name.endswith(".npy")} == set(bundle.arrays)
    for name, array in bundle.arrays.items():
        np.testing.assert_array_equal(array, np.load(path / name))


def test_arrays_are_mapped_and_cannot_be_written(copy: Copy) -> None:
    bundle = open_bundle(copy())
    for array in bundle.arrays.values():
        assert isinstance(array.base, np.memmap)
        assert not array.flags.writeable
    with pytest.raises(TypeError):
        bundle.arrays["more"] = np.zeros(1)  # type: ignore[index]


def test_labels_without_texts(copy: Copy) -> None:
    assert open_bundle(copy(has_label_texts=False)).labels.text(0) is None


def test_the_folder_itself_may_be_reached_by_a_link(copy: Copy, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(copy())
    assert open_bundle(tmp_path / "current").labels.id(0) == "label-00"


def test_a_draft_is_loaded_by_export_and_refused_by_the_service(copy: Copy) -> None:
    path = copy()
    draft = read_manifest(path).model_copy(update={"parity": None})
    write_manifest(path, draft)
    with pytest.raises(BundleError, match="found a draft"):
        open_bundle(path)
    (path / layout.MANIFEST).unlink()
    assert load_bundle(path, draft).manifest is draft
