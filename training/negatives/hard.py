"""Hard negatives: for every training row, the labels that score highest and are not its own.

Found by exact inner-product search with FAISS, as in UniDEC, WWW 2025; the lists are several times as long as what a
step draws from them, so that they last until they are renewed.

Letters: N rows, L labels, D dimensions, H labels of a list, Q queries of a batch, E of them drawn.
"""

from __future__ import annotations

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from training.metrics import hits

ROWS_AT_ONCE = 8192
NONE = -1


def mine(
    queries_ND: NDArray[np.float32], labels_LD: NDArray[np.float32], targets_NL: csr_array, count: int
) -> NDArray[np.int32]:
    """The labels with the largest inner products that are not true, best first.

    Args:
        queries_ND: vectors of the rows.
        labels_LD: vectors of the labels.
        targets_NL: true labels of the rows; a relevance above 0 makes a label true.
        count: H, length of a list.

    Returns:
        int32 (N, H); a list is filled up with -1 where the row has fewer other labels.
    """
    mined_NH = np.full((len(queries_ND), count), NONE, dtype=np.int32)
    # Rows with equally many true labels are searched together: each search must reach past all true labels of a row.
    order = np.argsort(np.diff(targets_NL.indptr), kind="stable")
    for start in range(0, len(order), ROWS_AT_ONCE):
        rows = order[start : start + ROWS_AT_ONCE]
        true = targets_NL[rows]
        reach = min(count + int(np.diff(true.indptr).max()), len(labels_LD))
        _, found_NK = faiss.knn(queries_ND[rows], labels_LD, reach, metric=faiss.METRIC_INNER_PRODUCT)
        true_NK = hits(found_NK, true)
        others_first = np.argsort(true_NK, axis=1, kind="stable")[:, :count]
        others = np.where(true_NK, NONE, found_NK)
        mined_NH[rows, : others_first.shape[1]] = np.take_along_axis(others, others_first, axis=1)
    return mined_NH


def draw_hard(mined_QH: Tensor, per_query: int) -> Tensor:
    """Some labels of each list, drawn without replacement.

    Args:
        mined_QH: lists of the batch's rows, filled up with -1.
        per_query: how many of each, eta.

    Returns:
        Label rows of all queries, with a label as often as it was drawn.
    """
    places_QE = torch.rand(mined_QH.shape, device=mined_QH.device).argsort(dim=1)[:, :per_query]
    drawn = mined_QH.gather(1, places_QE)
    return drawn[drawn != NONE].long()
