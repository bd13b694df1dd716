"""DECLARE's neighbours by label factors: similarities Y (V_c z) of the training rows, without holding Z = Y V_c.

Letters: Q queries, C dimensions of the embedding, G distinct training rows, N nearest of them, L labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from service.decoders import nearest
from service.decoders.rooms import Rooms
from service.topk import TopK, in_turn, select

# With fewer votes than these, the similarities of all rows are computed before a search has found out where to look.
SEARCHED_VOTES = 1 << 18
# Of more queries at once, all similarities are one product of matrices, which costs each query less than a search.
MOST_SEARCHED = 4

Floats = NDArray[np.float32]


class FactorSearch:
    """Exact search of the rows Y V_c, divided by their lengths.

    Args:
        votes_GL: Y, votes above 0.
        factors_LC: V_c.
        lengths_G: what similarities to each row are divided by, above 0; None: by nothing.
        counts_G: neighbours that each row stands for; None: one.
    """

    def __init__(
        self,
        votes_GL: csr_array,
        factors_LC: Floats,
        lengths_G: Floats | None = None,
        counts_G: NDArray[np.int32] | None = None,
    ) -> None:
        self._votes_GL = votes_GL
        self._factors_LC = factors_LC
        self._lengths_G = lengths_G
        self._lists: nearest.Lists | None = None
        if votes_GL.nnz >= SEARCHED_VOTES:
            ones_G = np.ones(votes_GL.shape[0], dtype=np.int32)
            lengths_G = ones_G.astype(np.float32) if lengths_G is None else lengths_G
            counts_G = ones_G if counts_G is None else counts_G
            self._votes = nearest.fixed_votes(votes_GL, lengths_G, counts_G)
            self._lists = nearest.make_lists(votes_GL, factors_LC, lengths_G)
        self._rooms: Rooms[nearest.Room] = Rooms(lambda: nearest.make_room(votes_GL.shape[0]))

    def __call__(self, embeddings_QC: Floats, count: int) -> TopK:
        """Rows that stand for the nearest neighbours of each query, so many; then rows that are no neighbours."""
        count = min(count, self._votes_GL.shape[0])
        return in_turn(
            lambda low, high: self._nearest(self._factors_LC @ embeddings_QC[low:high].T, count),
            len(embeddings_QC),
            sum(self._votes_GL.shape),
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
                if not nearest.search(scores_L, self._votes, self._lists, room, ids_QN[query], best_QN[query])
            ]
        if far:
            rest = self._of_all(scores_LQ[:, far], count)
            ids_QN[far], best_QN[far] = rest.ids_QK, rest.scores_QK
        return TopK(ids_QN, best_QN)

    def _of_all(self, scores_LQ: Floats, count: int) -> TopK:
        similarities_GQ: Floats = self._votes_GL @ scores_LQ
        if self._lengths_G is not None:
            similarities_GQ /= self._lengths_G[:, None]
        return select(similarities_GQ.T, count)
