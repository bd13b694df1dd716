from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from model_export.exact_search import write_exact_search
from service.errors import BundleError
from service.search import exact, topk
from service.search.exact import ExactSearch
from tests.reference import assert_best

VECTORS, DIMENSION = 300, 8


def vectors(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((VECTORS, DIMENSION)).astype(np.float32)


def written(folder: Path, stored: NDArray[np.float32]) -> Path:
    write_exact_search(stored, folder / "vectors.npy", folder / "search.onnx")
    return folder / "search.onnx"


def opened(folder: Path, stored: NDArray[np.float32], threads: int = 1) -> ExactSearch:
    return ExactSearch.open(written(folder, stored), dimension=DIMENSION, size=len(stored), threads=threads)


@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("k", [1, 10, VECTORS, 1000])
@pytest.mark.parametrize("scores_at_once", [1, 4 * VECTORS, topk.DENSE_SCORES_BY_QUERY])
def test_search_is_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, queries: int, k: int, scores_at_once: int
) -> None:
    monkeypatch.setattr(topk, "DENSE_SCORES_BY_QUERY", scores_at_once)
    asked = np.random.default_rng(1).standard_normal((queries, DIMENSION)).astype(np.float32)
    top = opened(tmp_path, vectors()).search(asked, k)
    assert_best(top, asked.astype(np.float64) @ vectors().T.astype(np.float64), k)


def test_no_more_scores_are_held_than_are_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk, "DENSE_SCORES_BY_QUERY", 4 * VECTORS)
    select, sizes = topk.select, []

    def recorded(scores_QL: NDArray[np.float32], k: int) -> topk.TopK:
        sizes.append(scores_QL.size)
        return select(scores_QL, k)

    monkeypatch.setattr(exact, "select", recorded)
    opened(tmp_path, vectors()).search(vectors()[:10], 5)
    assert sizes == [4 * VECTORS, 4 * VECTORS, 2 * VECTORS]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("copies", [3, 20, VECTORS])
def test_ties_across_the_boundary_go_to_the_smallest_rows(tmp_path: Path, copies: int, threads: int) -> None:
    stored = -np.abs(vectors())
    tied = np.sort(np.random.default_rng(2).permutation(VECTORS)[:copies])
    stored[tied] = 1.0
    asked = np.ones((2, DIMENSION), dtype=np.float32)
    asked[1] = 2.0
    top = opened(tmp_path, stored, threads).search(asked, 2)
    assert top.ids_QK.tolist() == [tied[:2].tolist()] * 2
    assert top.scores_QK.tolist() == [[8.0, 8.0], [16.0, 16.0]]


@pytest.mark.parametrize("queries", [1, 5])
def test_equal_vectors_have_equal_scores(tmp_path: Path, queries: int) -> None:
    """Wherever they lie: at the edges of the product's blocks as well."""
    stored = np.repeat(vectors()[:1], VECTORS - 1, axis=0)
    top = opened(tmp_path, stored).search(vectors(1)[:queries], VECTORS)
    assert top.ids_QK.tolist() == [list(range(VECTORS - 1))] * queries


def test_a_query_of_zeros_ties_with_everything(tmp_path: Path) -> None:
    top = opened(tmp_path, vectors()).search(np.zeros((1, DIMENSION), dtype=np.float32), 5)
    assert top.ids_QK.tolist() == [[0, 1, 2, 3, 4]]


def test_queries_in_any_order_of_memory(tmp_path: Path) -> None:
    asked, search = vectors(1), opened(tmp_path, vectors())
    expected = search.search(asked, 5)
    np.testing.assert_array_equal(search.search(np.asfortranarray(asked), 5).ids_QK, expected.ids_QK)


def test_several_threads_search_at_once(tmp_path: Path) -> None:
    search = opened(tmp_path, vectors())
    batches = [vectors(seed)[: 1 + seed] for seed in range(40)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda batch: search.search(batch, 5), batches))
    for batch, top in zip(batches, answers, strict=True):
        assert_best(top, batch.astype(np.float64) @ vectors().T.astype(np.float64), 5)


def test_the_session_takes_the_threads_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, seen = onnxruntime.InferenceSession, []

    def recorded(path: str, options: onnxruntime.SessionOptions, providers: list[str]) -> object:
        seen.append((options.intra_op_num_threads, providers))
        return start(path, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", recorded)
    opened(tmp_path, vectors(), threads=3)
    assert seen == [(3, ["CPUExecutionProvider"])]


def no_graph(graph: Path) -> None:
    graph.write_bytes(b"not a graph")


def no_vectors(graph: Path) -> None:
    (graph.parent / "vectors.npy").unlink()


def short_vectors(graph: Path) -> None:
    file = graph.parent / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-4])


def renamed(kind: str) -> Callable[[Path], None]:
    """Give the graph's input or output another name."""

    def rename(graph: Path) -> None:
        model = onnx.load(str(graph), load_external_data=False)
        getattr(model.graph, kind)[0].name = getattr(model.graph.node[0], kind)[0] = "other"
        graph.write_bytes(model.SerializeToString())

    return rename


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (no_graph, "expected a graph that ONNX Runtime loads, found: "),
        (no_vectors, "expected a graph that ONNX Runtime loads, found: "),
        (short_vectors, "expected a graph that ONNX Runtime loads, found: "),
        (renamed("input"), r"expected inputs \{'queries': 'tensor\(float\)'\}, found \{'other': "),
        (renamed("output"), r"expected an output 'scores', found \['other'\]"),
    ],
)
def test_a_graph_that_cannot_search_is_refused(tmp_path: Path, damage: Callable[[Path], None], sentence: str) -> None:
    graph = written(tmp_path, vectors())
    damage(graph)
    with pytest.raises(BundleError, match=rf"search\.onnx: {sentence}") as caught:
        ExactSearch.open(graph, dimension=DIMENSION, size=VECTORS, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dimension", "size", "sentence"),
    [
        (DIMENSION + 1, VECTORS, r"input queries tensor\(float\) \['Q', 9\], found tensor\(float\) \['Q', 8\]"),
        (DIMENSION, VECTORS + 1, r"output scores tensor\(float\) \['Q', 301\], found tensor\(float\) \['Q', 300\]"),
    ],
)
def test_a_search_of_other_sizes_is_refused(tmp_path: Path, dimension: int, size: int, sentence: str) -> None:
    graph = written(tmp_path, vectors())
    with pytest.raises(BundleError, match=rf"search\.onnx: expected {sentence}"):
        ExactSearch.open(graph, dimension=dimension, size=size, threads=1)


def test_the_folder_may_be_reached_by_a_link_and_be_moved(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    written(tmp_path / "first", vectors())
    (tmp_path / "first").rename(tmp_path / "second")
    (tmp_path / "link").symlink_to(tmp_path / "second")
    search = ExactSearch.open(tmp_path / "link" / "search.onnx", dimension=DIMENSION, size=VECTORS, threads=1)
    assert search.search(vectors()[:1], 3).ids_QK.shape == (1, 3)
