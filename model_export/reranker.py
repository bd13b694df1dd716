"""An artifact's word classifiers as bundles keep them, and what they make of a reference's scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.bundle import layout
from service.bundle.manifest import Precision, RerankSection
from training.reranker import Reranker

INT8_LIMIT = 127


def write_reranker(reranker: Reranker, folder: Path, precision: Precision, label_count: int) -> RerankSection:
    """Write the classifiers by word: in fp16 as half floats, in int8 as 8 bits with a scale for each word.

    Args:
        reranker: of the artifact.
        folder: the bundle in the making.
        precision: of the weights.
        label_count: of the bundle, which may have labels without classifier behind the others.
    """
    weights = reranker.weights
    words = weights.shape[0]
    values: NDArray[Any] = weights.data.astype(np.float32)
    scales = np.ones(words, dtype=np.float32)
    if precision == "fp16":
        values = values.astype(np.float16)
    elif precision == "int8":
        scales = _peaks(weights) / np.float32(INT8_LIMIT)
        values = np.rint(values / np.repeat(scales, np.diff(weights.indptr))).astype(np.int8)
    arrays: dict[str, NDArray[Any]] = {
        layout.RERANK_OFFSETS: weights.indptr.astype(layout.offset_dtype(weights.nnz)),
        layout.RERANK_LABELS: weights.indices.astype(layout.label_dtype(label_count)),
        layout.RERANK_VALUES: values,
        layout.RERANK_SCALES: scales,
    }
    terms, idf = reranker.weighing.terms, reranker.weighing.idf
    if idf is not None:
        arrays[layout.RERANK_IDF] = idf.astype(np.float32)
    if terms is not None:
        arrays |= {
            layout.RERANK_PIECE_OFFSETS: terms.piece_offsets.astype(layout.offset_dtype(len(terms.pieces))),
            layout.RERANK_PIECES: terms.pieces.astype(np.int32),
            layout.RERANK_PAIRS: terms.pairs.astype(np.int64),
        }
    for name, array in arrays.items():
        np.save(folder / name, array)
    weighing = {"terms": terms is not None, "present": terms is None and idf is not None}
    return RerankSection.model_validate(reranker.mixture.model_dump() | weighing)


def reranked(reranker: Reranker, words: csr_array, scores_QL: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of all labels, float32 (Q, L), as an answer that holds them all has them.

    Labels behind those of the classifiers have none.
    """
    labels_QL = np.argsort(-scores_QL, axis=1, kind="stable")
    found_QL, mixed_QL = reranker.rerank(words, labels_QL, np.take_along_axis(scores_QL, labels_QL, axis=1))
    result_QL = np.empty_like(scores_QL)
    np.put_along_axis(result_QL, found_QL, mixed_QL, axis=1)
    return result_QL


def _peaks(weights: csr_array) -> NDArray[np.float32]:
    """The largest magnitude of each word's weights; 1 where it has none."""
    peaks = np.zeros(weights.shape[0], dtype=np.float32)
    rows = np.repeat(np.arange(len(peaks)), np.diff(weights.indptr))
    np.maximum.at(peaks, rows, np.abs(weights.data))
    return np.where(peaks > 0, peaks, np.float32(1))
