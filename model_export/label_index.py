"""Which index finds labels, decided by measurement: the quickest that has the wanted recall in at most half the bytes.

Recall is the share of the true `RECALL_AT` best labels that are found, over the sample queries. Latency is that of one
query at a time on one thread, asked as the service asks.

Letters: Q queries, L labels, D dimensions, K answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from model_export.axes import Vectors
from model_export.codes import encode, write_codes
from model_export.errors import ExportError
from model_export.faiss_index import build_index, efforts, size_bytes, spans, spend, write_index
from service.bundle import layout
from service.bundle.searching import ApproximateType, IndexPoint, IndexSection
from service.search.codes import Codes
from service.search.index import Index

IndexChoice = Literal["auto", "flat", "hnsw", "ivf"]

RECALL_AT = 100
WANTED_RECALL = 0.99
# Exact search of so many numbers, 32 MB, takes two or three milliseconds and needs nothing to be built.
EXACT_NUMBERS = 1 << 23
# "auto" builds no other index where one answers in so many milliseconds: a graph takes long to build.
FAST_ENOUGH_MS = 3.0
BUILT_IN_TURN: tuple[ApproximateType, ...] = ("ivf", "hnsw")
# Of the bytes of float32 vectors; larger indexes must be asked for by name.
MOST_BYTES = 0.5

# Fewer sample queries than this measure nothing; label vectors join them up to this number.
FEWEST_QUERIES = 64
# Every query is timed so often, and its least time counts: a shared machine only ever adds to it.
ROUNDS = 3
# Inner products within this are one product that was rounded in two ways.
ROUNDING = 1e-5


@dataclass(frozen=True)
class WantedIndex:
    """What a user may choose.

    Attributes:
        type: "auto" is exact search of up to `EXACT_NUMBERS` numbers, beyond it what was measured to be the quickest.
        recall: at `RECALL_AT`; a mean over few queries errs, so it must be exceeded by its standard error.
    """

    type: IndexChoice = "auto"
    recall: float = WANTED_RECALL


@dataclass(frozen=True)
class LabelIndex:
    """An approximate index.

    Attributes:
        finder: of FAISS, see `model_export.faiss_index`.
        codes: by which candidates are scored.
    """

    finder: Any
    codes: Codes

    @property
    def size_bytes(self) -> int:
        """Of the files."""
        return size_bytes(self.finder) + self.codes.nbytes

    def write(self, folder: Path) -> None:
        """Write the files of a bundle."""
        write_index(self.finder, folder / layout.LABEL_INDEX)
        write_codes(folder, self.codes)


@dataclass(frozen=True)
class Chosen:
    """An index and what the manifest says about it.

    Attributes:
        index: None for exact search, which needs none.
        section: its type, parameters and recall, and the curve of all that was measured.
    """

    index: LabelIndex | None
    section: IndexSection


def choose_index(vectors_LD: Vectors, queries_QD: Vectors, wanted: WantedIndex) -> Chosen:
    """Build the index that is wanted, with the quickest parameters that have its recall.

    Args:
        vectors_LD: what is to be found, L at least 1.
        queries_QD: queries as they will be asked.
        wanted: its type and recall.

    Raises:
        ExportError: an index of the chosen type does not have that recall, whatever is spent.
    """
    is_open = wanted.type == "auto"
    if wanted.type == "flat" or (is_open and vectors_LD.size <= EXACT_NUMBERS):
        return Chosen(None, IndexSection(type="flat", recall=1.0))
    kinds: tuple[ApproximateType, ...] = BUILT_IN_TURN if wanted.type == "auto" else (wanted.type,)
    bench = Bench(vectors_LD, queries_QD)
    exact, codes = bench.exact(), encode(bench.vectors_LD, bench.queries_QD)
    curve, best, built = [exact], exact if is_open else None, None
    for kind in kinds:
        if best is not None and best.p50_ms <= FAST_ENOUGH_MS:
            break
        index = LabelIndex(build_index(bench.vectors_LD, kind), codes)
        for point, lowest in bench.points(index, kind, wanted.recall):
            curve.append(point)
            fits = not is_open or point.size_bytes <= MOST_BYTES * exact.size_bytes
            if fits and lowest >= wanted.recall and (best is None or point.p50_ms < best.p50_ms):
                best, built = point, index
    if best is None:
        found = max(point.recall for point in curve[1:])
        asked = f"recall@{RECALL_AT} {wanted.recall:g}"
        raise ExportError(f"--index {wanted.type}: expected {asked}, surely, found {found:.4f} at most")
    if built is not None and best.effort is not None:
        spend(built.finder, best.effort)
    return Chosen(built, _section(built, best, tuple(curve)))


def _section(index: LabelIndex | None, point: IndexPoint, curve: tuple[IndexPoint, ...]) -> IndexSection:
    return IndexSection(
        type=point.type,
        recall=point.recall,
        recall_at=RECALL_AT,
        effort=point.effort,
        span=point.span,
        candidates=point.candidates,
        directions=None if index is None else index.codes.codes_LW.shape[1],
        curve=curve,
    )


class Bench:
    """Vectors, queries and the true answers."""

    def __init__(self, vectors_LD: Vectors, queries_QD: Vectors) -> None:
        self.vectors_LD = np.ascontiguousarray(vectors_LD)
        self.queries_QD = _enough(queries_QD, self.vectors_LD)
        self.worst_Q = self._exact(self.queries_QD)[:, -1]

    def exact(self) -> IndexPoint:
        """Exact search; FAISS's takes as long as ONNX Runtime's for one query, and needs no file of the vectors."""
        with _on_one_thread():
            p50_ms = self._p50_ms(self._exact)
        return IndexPoint(type="flat", recall=1.0, p50_ms=p50_ms, size_bytes=self.vectors_LD.nbytes)

    def points(self, index: LabelIndex, kind: ApproximateType, wanted: float) -> Iterator[tuple[IndexPoint, float]]:
        """What each effort gives, and its recall less the standard error.

        Of equal candidates, efforts beyond the first with the wanted recall are left out: they only cost more.
        """
        size, done, span_of = index.size_bytes, set[int](), spans(index.finder, self.queries_QD)
        for effort, candidates in efforts(index.finder):
            if candidates in done:
                continue
            spend(index.finder, effort)
            span = span_of(effort)
            opened = Index(index.finder, index.codes, candidates=candidates, span=span, threads=1)
            search = partial(opened.search, k=RECALL_AT)
            with _on_one_thread():
                recall_Q = self.recall_Q(search(self.queries_QD).ids_QK)
                p50_ms = self._p50_ms(search)
            recall = float(recall_Q.mean())
            lowest = recall - float(recall_Q.std()) / len(recall_Q) ** 0.5
            if lowest >= wanted:
                done.add(candidates)
            yield (
                IndexPoint(
                    type=kind,
                    effort=effort,
                    span=span,
                    candidates=candidates,
                    recall=recall,
                    p50_ms=p50_ms,
                    size_bytes=size,
                ),
                lowest,
            )

    def recall_Q(self, ids_QK: NDArray[np.int64]) -> NDArray[np.float64]:
        """Share of the best that was found for each query; among equally near vectors any will do."""
        true_QK = np.einsum("qkd,qd->qk", self.vectors_LD[ids_QK], self.queries_QD)
        shares_Q: NDArray[np.float64] = (true_QK >= self.worst_Q[:, None] - ROUNDING).mean(axis=1)
        return shares_Q

    def _exact(self, queries_QD: Vectors) -> Vectors:
        count = min(RECALL_AT, len(self.vectors_LD))
        scores_QK, _ = faiss.knn(queries_QD, self.vectors_LD, count, metric=faiss.METRIC_INNER_PRODUCT)
        return np.asarray(scores_QK)

    def _p50_ms(self, search: Callable[[Vectors], object]) -> float:
        """Median over the queries, one at a time."""
        rows = range(len(self.queries_QD))
        return 1000 * float(np.median([_least_seconds(search, self.queries_QD[row : row + 1]) for row in rows]))


@contextmanager
def _on_one_thread() -> Iterator[None]:
    """OpenMP keeps the number for each calling thread, and building an index wants all."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _least_seconds(search: Callable[[Vectors], object], query_1D: Vectors) -> float:
    def once() -> float:
        started = time.perf_counter()
        search(query_1D)
        return time.perf_counter() - started

    return min(once() for _ in range(ROUNDS))


def _enough(queries_QD: Vectors, vectors_LD: Vectors) -> Vectors:
    missing = FEWEST_QUERIES - len(queries_QD)
    if missing <= 0:
        return np.ascontiguousarray(queries_QD)
    drawn = np.random.default_rng(0).choice(len(vectors_LD), size=min(missing, len(vectors_LD)), replace=False)
    return np.concatenate([queries_QD, vectors_LD[np.sort(drawn)]])
