"""The k best of many scores, exactly: score descending, ties by label row ascending.

Letters: Q queries, L labels, K answers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.metrics import PADDING


def top(scores_QL: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rows of the k highest scores, ties by label row, as `topk` alone does not promise, and these scores: (Q, k) both.

    Scores that are no number, or minus infinity, are no predictions. They are replaced where they stand.
    """
    scores_QL.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    best, labels = scores_QL.topk(min(k + 1, scores_QL.shape[1]), dim=1)
    labels_QK, kth_Q = labels[:, :k], best[:, k - 1]
    # Only where the next label ties with the last place could topk have taken the wrong one.
    for query in (best[:, k:] == kth_Q[:, None]).any(dim=1).nonzero().flatten().tolist():
        labels_QK[query] = _first_of_ties(scores_QL[query], kth_Q[query], k)
    labels_QK = labels_QK.sort(dim=1).values
    ordered = scores_QL.gather(1, labels_QK).sort(dim=1, descending=True, stable=True)
    missing_QK = ordered.values == -torch.inf
    labels_QK = labels_QK.gather(1, ordered.indices).masked_fill(missing_QK, PADDING)
    return labels_QK, ordered.values.masked_fill(missing_QK, torch.nan)


def _first_of_ties(scores_L: Tensor, kth: Tensor, k: int) -> Tensor:
    """The labels above the k-th score and, up to k, the first of those that have it: int64 (k,)."""
    above = (scores_L > kth).nonzero().flatten()
    tied = (scores_L == kth).nonzero().flatten()
    return torch.cat([above, tied[: k - len(above)]])
