"""DECLARE's neighbours by label factors: similarities Y (V_c z) of the training rows, without holding Z = Y V_c.

Letters: Q queries, C dimensions of the embedding, G distinct training rows, N nearest of them, L labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.decoders import nearest
from service.decoders.rooms import Rooms
from service.search.topk import TopK, in_turn, select
from service.search.votes import Votes

# With fewer votes than these, the similarities of all rows are computed before a search has found out where to look.
SEARCHED_VOTES = 1 << 18
# Of more queries at once, all similarities are one product of matrices, which costs each query less than a search.
MOST_SEARCHED = 4

Floats = NDArray[np.float32]


class FactorSearch:
    """Exact search of the rows Y V_c, divided by their lengths.

    Args:
        votes: Y.
        factors_LC: V_c.
        lengths_G: what similarities to each row are divided by, above 0; None: by nothing.
        counts_G: neighbours that each row stands for; None: one.
    """

    def __init__(
        self,
        votes: Votes,
        factors_LC: Floats,
        lengths_G: Floats | None = None,
        counts_G: NDArray[np.int32] | None = None,
    ) -> None:
        self._votes = votes
        self._factors_LC = factors_LC
        self._lengths_G = lengths_G
        self._lists: nearest.Lists | None = None
        if len(votes.labels_P) >= SEARCHED_VOTES:
            ones_G = np.ones(votes.row_count, dtype=np.int32)
            lengths_G = ones_G.astype(np.float32) if lengths_G is None else lengths_G
            counts_G = ones_G if counts_G is None else counts_G
            self._rows = nearest.fixed_rows(votes, lengths_G, counts_G)
            self._lists = nearest.make_lists(votes, factors_LC, lengths_G)
        self._rooms: Rooms[nearest.Room] = Rooms(lambda: nearest.make_room(votes.row_count))

    def __call__(self, embeddings_QC: Floats, count: int) -> TopK:
        """Rows that stand for the nearest neighbours of each query, so many; then rows that are no neighbours."""
        count = min(count, self._votes.row_count)
        return in_turn(
            lambda low, high: self._nearest(self._factors_LC @ embeddings_QC[low:high].T, count),
            len(embeddings_QC),
            self._votes.row_count + self._votes.label_count,
        )

    def _nearest(self, scores_LQ: Floats, count: int) -> TopK:
        """Few queries one by one; then all rows for those that are near to none."""
        if self._lists is None or scores_LQ.shape[1] > MOST_SEARCHED:
            return self._of_all(scores_LQ, count)
        scores_QL = np.ascontiguousarray(scores_LQ.T)
        ids_QN = np.empty((len(scores_QL), count), dtype=np.int64)
        best_QN = np.empty((len(scores_QL), count), dtype=np.float32)
        with self._rooms.taken() as room:
            far = [
                query
                for query, scores_L in enumerate(scores_QL)
                if not nearest.search(scores_L, self._rows, self._lists, room, ids_QN[query], best_QN[query])
            ]
        if far:
            rest = self._of_all(scores_LQ[:, far], count)
            ids_QN[far], best_QN[far] = rest.ids_QK, rest.scores_QK
        return TopK(ids_QN, best_QN)

    def _of_all(self, scores_LQ: Floats, count: int) -> TopK:
        similarities_GQ = self._votes.products(scores_LQ)
        if self._lengths_G is not None:
            similarities_GQ /= self._lengths_G[:, None]
        return select(similarities_GQ.T, count)
