from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.exact_search import write_exact_search
from model_export.leading import leading_of, write_leading
from service.bundle import layout, open_bundle
from service.engine import Engine
from service.errors import BundleError
from service.search import leading, topk
from service.search.leading import LeadingSearch
from tests.bundles import Spec, write_bundle
from tests.reference import assert_best

LABELS, DIMENSION, LEADING = 700, 24, 6
# Numbers of leading coordinates, and how fast the vectors' extent falls from one direction to the next.
FALLING = [(6, 0.7), (1, 0.7), (24, 0.7), (6, 1.0), (6, 0.1)]


def drawn(rows: int, falling: float = 0.7, seed: int = 0) -> NDArray[np.float32]:
    """Vectors that lie in some directions more than in others, and along none of the coordinates."""
    rng = np.random.default_rng(seed)
    turn_DD, _ = np.linalg.qr(np.random.default_rng(99).standard_normal((DIMENSION, DIMENSION)))
    extents_D = falling ** np.arange(DIMENSION)
    return (rng.standard_normal((rows, DIMENSION)) * extents_D @ turn_DD).astype(np.float32)


def opened(folder: Path, vectors_LD: NDArray[np.float32], count: int = LEADING, threads: int = 1) -> LeadingSearch:
    chosen = leading_of(vectors_LD, count)
    write_leading(folder, vectors_LD, chosen)
    graph = folder / layout.LABEL_SEARCH
    return LeadingSearch.open(graph, vectors_LD, chosen.rests_L, leading=count, threads=threads)


@pytest.mark.parametrize(("count", "falling"), FALLING)
@pytest.mark.parametrize("k", [1, 10, 100, LABELS, 1000])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_search_is_exact(tmp_path: Path, scale: float, k: int, count: int, falling: float) -> None:
    vectors_LD, queries_QD = scale * drawn(LABELS, falling), drawn(5, falling, seed=1)
    top = opened(tmp_path, vectors_LD, count).search(queries_QD, k)
    scores_QL = queries_QD.astype(np.float64) @ vectors_LD.T.astype(np.float64) / scale
    assert_best(topk.TopK(top.ids_QK, top.scores_QK / np.float32(scale)), scores_QL, k)


def test_queries_unlike_all_labels_are_answered_exactly(tmp_path: Path) -> None:
    """They lie where labels have next to nothing, so leading coordinates tell nothing."""
    vectors_LD = drawn(LABELS)
    whole = leading_of(vectors_LD, DIMENSION)
    queries_QD = np.ascontiguousarray(whole.axes_DC[:, -3:].T)
    top = opened(tmp_path, vectors_LD).search(queries_QD, 10)
    scores_QL = queries_QD.astype(np.float64) @ vectors_LD.T.astype(np.float64)
    assert_best(top, scores_QL, 10)


def test_equal_labels_come_in_the_order_of_their_rows(tmp_path: Path) -> None:
    vectors_LD = np.repeat(drawn(60), 5, axis=0)
    top = opened(tmp_path, vectors_LD).search(drawn(4, seed=1), 12)
    for row in top.ids_QK.tolist():
        assert [label % 5 for label in row] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_nothing_is_like_a_query_of_zeros(tmp_path: Path) -> None:
    top = opened(tmp_path, drawn(LABELS)).search(np.zeros((2, DIMENSION), dtype=np.float32), 5)
    assert top.ids_QK.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize("threads", [1, 2])
def test_company_changes_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    monkeypatch.setattr(topk, "DENSE_SCORES_BY_QUERY", 16 * LABELS)
    search, queries_QD = opened(tmp_path, drawn(LABELS), threads=threads), drawn(40, seed=1)
    together = search.search(queries_QD, 10)
    with ThreadPoolExecutor(4) as pool:
        alone = list(pool.map(lambda row: search.search(queries_QD[row : row + 1], 10), range(40)))
    for row, top in enumerate(alone):
        np.testing.assert_array_equal(top.ids_QK[0], together.ids_QK[row])
        np.testing.assert_array_equal(top.scores_QK[0], together.scores_QK[row])


def test_most_labels_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    kernel, product = leading._search.py_func, leading.inner_product.py_func  # type: ignore[attr-defined]

    def counted(*vectors: NDArray[np.float32]) -> np.float32:
        read.append(1)
        return np.float32(product(*vectors))

    monkeypatch.setattr(leading, "inner_product", counted)
    monkeypatch.setattr(leading, "_take_better", leading._take_better.py_func)  # type: ignore[attr-defined]
    monkeypatch.setattr(leading, "_search", kernel)
    search, queries_QD = opened(tmp_path, drawn(LABELS), count=12), drawn(5, seed=1)
    assert_best(search.search(queries_QD, 5), queries_QD.astype(np.float64) @ drawn(LABELS).T.astype(np.float64), 5)
    assert 5 * 5 <= len(read) < 5 * LABELS / 4


@pytest.mark.parametrize("method", ["unidec", "ova"])
def test_bundles_have_it(tmp_path: Path, method: str) -> None:
    write_bundle(tmp_path / "bundle", Spec(method=method, leading=3))  # type: ignore[arg-type]
    write_bundle(tmp_path / "plain", Spec(method=method))  # type: ignore[arg-type]
    engines = [Engine.open(open_bundle(tmp_path / name), device="cpu") for name in ("bundle", "plain")]
    for engine in engines:
        engine.check_golden()
    tops = [engine.run(engine.prepare(["web server", "font"]), 7).top for engine in engines]
    np.testing.assert_array_equal(tops[0].ids_QK, tops[1].ids_QK)
    np.testing.assert_allclose(tops[0].scores_QK, tops[1].scores_QK, rtol=1e-5, atol=1e-5)


def test_a_graph_of_another_kind_is_refused(tmp_path: Path) -> None:
    vectors_LD = drawn(LABELS)
    rests_L = leading_of(vectors_LD, LEADING).rests_L
    write_exact_search(vectors_LD, tmp_path / "vectors.npy", tmp_path / "search.onnx")
    with pytest.raises(BundleError, match=r"expected an output 'leading', found \['scores'\]"):
        LeadingSearch.open(tmp_path / "search.onnx", vectors_LD, rests_L, leading=LEADING, threads=1)
