"""The choice of an index: by recall, bytes and latency that were measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from model_export import label_index
from model_export.codes import encode
from model_export.errors import ExportError
from model_export.faiss_index import build_index, efforts
from model_export.label_index import Bench, LabelIndex, WantedIndex, choose_index
from service.bundle import layout
from service.bundle.searching import ApproximateType
from service.search.codes import Codes
from service.search.index import Index
from tests.model_export.vectors import unit_vectors
from tests.reference import best_labels

LABELS, QUERIES = unit_vectors(3000), unit_vectors(80, seed=1)


def built(kind: ApproximateType) -> LabelIndex:
    return LabelIndex(build_index(LABELS, kind), encode(LABELS, QUERIES))


@pytest.fixture
def measure_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were too many labels for exact search, and no index were fast enough to end the search."""
    monkeypatch.setattr(label_index, "EXACT_NUMBERS", 0)
    monkeypatch.setattr(label_index, "FAST_ENOUGH_MS", 0.0)
    monkeypatch.setattr(label_index, "MOST_BYTES", 10.0)


def latencies(monkeypatch: pytest.MonkeyPatch, *milliseconds: float) -> None:
    """Of exact search, and of everything that is measured after it, the last for all that follows."""
    left = list(milliseconds)
    monkeypatch.setattr(Bench, "_p50_ms", lambda *_: left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(
    ("choice", "count", "kind"), [("auto", 3000, "flat"), ("auto", 3001, "ivf"), ("flat", 9000, "flat")]
)
def test_auto_is_exact_up_to_so_many_numbers(
    monkeypatch: pytest.MonkeyPatch, choice: Any, count: int, kind: str
) -> None:
    monkeypatch.setattr(label_index, "EXACT_NUMBERS", 24 * 3000)
    monkeypatch.setattr(label_index, "MOST_BYTES", 10.0)
    latencies(monkeypatch, 5.0, 1.0)
    assert choose_index(unit_vectors(count), QUERIES, WantedIndex(choice, 0.8)).section.type == kind


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_the_recall_is_that_of_the_file_as_the_service_searches_it(kind: Any, tmp_path: Path) -> None:
    chosen = choose_index(LABELS, QUERIES, WantedIndex(kind, 0.95))
    assert chosen.index is not None
    chosen.index.write(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == pytest.approx(chosen.index.size_bytes, abs=500)
    arrays = {file.name: np.load(file) for file in tmp_path.glob("*.npy")}
    codes = Codes.from_arrays(arrays)
    index = Index.open(tmp_path / layout.LABEL_INDEX, chosen.section, codes, dimension=24, threads=1)
    exact = best_labels(QUERIES @ LABELS.T, 100)
    found = index.search(QUERIES, 100).ids_QK
    shares = [len(set(a) & set(b)) / 100 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]
    assert np.mean(shares) == pytest.approx(chosen.section.recall, abs=1e-3)
    assert (chosen.section.type, chosen.section.recall_at) == (kind, 100)
    assert chosen.section.recall >= 0.95


@pytest.mark.parametrize("kind", ["hnsw", "ivf"])
def test_no_more_is_spent_than_the_wanted_recall_asks_for(kind: Any) -> None:
    """What costs more is not even measured, once something among as many candidates has the recall."""
    index, bench = built(kind), Bench(LABELS, QUERIES)
    everything = list(bench.points(index, kind, 2.0))
    assert [(point.effort, point.candidates) for point, _ in everything] == list(efforts(index.finder))
    wanted = everything[1][1]
    first = [point.candidates for point, lowest in everything if lowest >= wanted]
    measured = list(bench.points(index, kind, wanted))
    assert [point.candidates for point, lowest in measured if lowest >= wanted] == sorted(set(first))
    assert len(measured) < len(everything)


def test_the_curve_holds_all_that_was_measured_and_the_choice_is_one_of_its_points(measure_all: None) -> None:
    section = choose_index(LABELS, QUERIES, WantedIndex("auto", 0.9)).section
    assert {point.type for point in section.curve} == {"flat", "ivf", "hnsw"}
    exact = section.curve[0]
    assert (exact.type, exact.recall, exact.size_bytes) == ("flat", 1.0, LABELS.nbytes)
    parameters = (section.type, section.effort, section.span, section.candidates, section.recall)
    curve = section.curve
    assert parameters in [(each.type, each.effort, each.span, each.candidates, each.recall) for each in curve]


def test_auto_takes_the_quickest_that_has_the_recall(measure_all: None, monkeypatch: pytest.MonkeyPatch) -> None:
    latencies(monkeypatch, 5.0, 1.0)
    chosen = choose_index(LABELS, QUERIES, WantedIndex("auto", 0.9))
    assert chosen.section.type == "ivf"
    assert chosen.index is not None
    latencies(monkeypatch, 0.5, 1.0)
    chosen = choose_index(LABELS, QUERIES, WantedIndex("auto", 0.9))
    assert chosen.section.type == "flat"
    assert chosen.index is None


@pytest.mark.parametrize(("fast_enough_ms", "built"), [(0.9, {"ivf", "hnsw"}), (1.0, {"ivf"}), (5.0, set())])
def test_auto_builds_nothing_more_where_something_is_fast_enough(
    measure_all: None, monkeypatch: pytest.MonkeyPatch, fast_enough_ms: float, built: set[str]
) -> None:
    monkeypatch.setattr(label_index, "FAST_ENOUGH_MS", fast_enough_ms)
    latencies(monkeypatch, 5.0, 1.0)
    section = choose_index(LABELS, QUERIES, WantedIndex("auto", 0.9)).section
    assert {point.type for point in section.curve} == {"flat", *built}


def test_auto_takes_no_index_that_is_too_large(measure_all: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_index, "MOST_BYTES", 0.1)
    latencies(monkeypatch, 5.0, 1.0)
    assert choose_index(LABELS, QUERIES, WantedIndex("auto", 0.9)).section.type == "flat"
    assert choose_index(LABELS, QUERIES, WantedIndex("ivf", 0.9)).section.type == "ivf"


def test_a_recall_that_no_effort_reaches_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_export.faiss_index.CANDIDATES", (100,))
    with pytest.raises(ExportError, match=r"--index ivf: expected recall@100 1, surely, found 0\.\d+ at most"):
        choose_index(LABELS, QUERIES, WantedIndex("ivf", 1.0))


def test_a_mean_must_exceed_what_is_wanted_by_its_standard_error() -> None:
    bench = Bench(LABELS, QUERIES)
    index = built("ivf")
    uncertain = [(point, lowest) for point, lowest in bench.points(index, "ivf", 1.0) if point.recall < 0.9]
    for point, lowest in uncertain:
        assert point.candidates is not None
        opened = Index(index.finder, index.codes, candidates=point.candidates, span=point.span, threads=1)
        shares_Q = bench.recall_Q(opened.search(QUERIES, 100).ids_QK)
        assert point.recall == pytest.approx(shares_Q.mean())
        assert lowest == pytest.approx(shares_Q.mean() - shares_Q.std() / np.sqrt(len(QUERIES)))
    assert uncertain


def test_recall_counts_any_of_equally_near_vectors() -> None:
    """Two hundred copies of one vector: whichever hundred are found, nothing was missed."""
    labels = np.concatenate([np.repeat(unit_vectors(1), 200, axis=0), unit_vectors(5, seed=1)])
    bench = Bench(labels, labels[:64])
    assert (bench.recall_Q(np.tile(np.arange(100, 200), (64, 1))) == 1).all()
    assert bench.recall_Q(np.tile(np.arange(105, 205), (64, 1))).mean() == pytest.approx(0.95)


def test_few_labels_and_few_samples_are_enough(capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("hnsw", "ivf"):
        chosen = choose_index(unit_vectors(3), unit_vectors(1, seed=1), WantedIndex(kind))  # type: ignore[arg-type]
        assert chosen.section.recall == 1
    assert capfd.readouterr() == ("", "")


def test_measuring_leaves_the_number_of_threads_as_it_was() -> None:
    """That of the calling thread, so a thread of its own is asked."""

    def after() -> int:
        faiss.omp_set_num_threads(2)
        choose_index(unit_vectors(200), QUERIES, WantedIndex("ivf", 0.5))
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(after).result() == 2
