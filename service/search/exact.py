"""Exact inner-product search: one matrix product for all vectors, then the best of all scores.

The product is a graph whose constant is the file of vectors. ONNX Runtime packs that constant for its kernel once, when
the graph is loaded; a product in numpy packs it every time. Beside the packed numbers nothing stays in memory.

Letters: Q queries, D dimensions, N vectors, K answers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.search.topk import TopK, in_turn, select
from service.sessions import FLOAT_TENSOR, check_floats, check_inputs, open_session

QUERIES, SCORES = "queries", "scores"


class ExactSearch:
    """A product with vectors 0 .. N-1; ``search`` may be called from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession, size: int) -> None:
        self._session = session
        self._size = size

    @classmethod
    def open(cls, path: Path, *, dimension: int, size: int, threads: int) -> ExactSearch:
        """Load a search graph, which finds its vectors in the file beside it, and check it against the manifest.

        Args:
            path: the graph's file.
            dimension: D.
            size: N.
            threads: that one search may use.

        Raises:
            BundleError: the graph cannot be loaded, or has another input or output.
        """
        session = open_session(path, device="cpu", threads=threads)
        check_inputs(path, session, {QUERIES: FLOAT_TENSOR})
        check_floats(path, "input", session.get_inputs(), {QUERIES: (dimension,)})
        check_floats(path, "output", session.get_outputs(), {SCORES: (size,)})
        return cls(session, size)

    def search(self, queries_QD: NDArray[np.float32], k: int) -> TopK:
        """The min(k, N) vectors with the largest inner products, best first, ties by row."""

        def answers(low: int, high: int) -> TopK:
            (scores_QN,) = self._session.run([SCORES], {QUERIES: queries_QD[low:high]})
            return select(scores_QN, k)

        return in_turn(answers, len(queries_QD), self._size)
