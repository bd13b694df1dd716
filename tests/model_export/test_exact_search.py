"""The two files of an exact search: equal bytes from equal vectors, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from model_export.exact_search import write_exact_search


def written(folder: Path, vectors_ND: np.ndarray) -> tuple[Path, Path]:
    folder.mkdir()
    write_exact_search(vectors_ND, folder / "labels.vectors.npy", folder / "labels.search.onnx")
    return folder / "labels.vectors.npy", folder / "labels.search.onnx"


def test_equal_vectors_make_equal_bytes(tmp_path: Path) -> None:
    vectors_ND = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    first, second = (written(tmp_path / name, vectors_ND) for name in ("a", "b"))
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


@pytest.mark.parametrize(
    "as_given", [np.asfortranarray, lambda a: a.astype(np.float64), lambda a: np.repeat(a, 2, axis=0)[::2]]
)
def test_the_graph_reads_the_numbers_behind_the_header(
    tmp_path: Path, as_given: Callable[[np.ndarray], np.ndarray]
) -> None:
    vectors_ND = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    vectors_file, graph_file = written(tmp_path / "files", as_given(vectors_ND))
    stored_ND = np.load(vectors_file)
    assert stored_ND.flags.c_contiguous
    np.testing.assert_array_equal(stored_ND, vectors_ND)
    (constant,) = onnx.load(str(graph_file)).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(constant), vectors_ND)


def test_the_graph_stays_small(tmp_path: Path) -> None:
    vectors_file, graph_file = written(tmp_path / "files", np.ones((5000, 64), dtype=np.float32))
    assert vectors_file.stat().st_size > 1_000_000
    assert graph_file.stat().st_size < 500
