"""DECLARE: the regressed row of Z as a graph, the votes as CSR arrays, and the smaller of factors and rows.

Letters: Q queries, T ids of a bag, C dimensions of Z = Y V_c, N training rows, L labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.exporters.base import Exporter, alike
from model_export.faiss_index import IndexChoice, exact_index, write_index
from service.bundle import layout
from service.bundle.manifest import DeclareSection, Recovery
from training.methods.declare import Declare, vote

# Similarities closer than this, relative to the query's largest, may come out in another order elsewhere.
SIMILARITY_ROUNDING = 1e-5


class DeclareGraph(nn.Module):
    """Padded bags to predicted rows of Z float32 (Q, C), in the scale of Z itself."""

    def __init__(self, model: Declare) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """Predicted rows of Z."""
        predicted_QC: Tensor = self.model.head(self.model.encoder.padded(ids_QT, values_QT))
        return predicted_QC * self.model.scales_C


class DeclareExporter(Exporter[Declare]):
    """See `Exporter`."""

    output = "embedding"

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return DeclareGraph(self.model)

    def write_tables(self, folder: Path, index: IndexChoice) -> DeclareSection:
        """The votes, and either the factors V_c or an exact index of the rows of Z."""
        config = self.model.config
        factors_LC = self.artifact.tables["factors"]
        votes_NL = self.model.votes_NL.copy()
        votes_NL.eliminate_zeros()  # a relevance of 0 votes for nothing
        votes_NL.sort_indices()
        np.save(folder / layout.DECLARE_VOTES_INDPTR, votes_NL.indptr.astype(np.int64))
        np.save(folder / layout.DECLARE_VOTES_INDICES, votes_NL.indices.astype(np.int32))
        np.save(folder / layout.DECLARE_VOTES_DATA, votes_NL.data.astype(np.float32))
        rows, labels = votes_NL.shape
        recovery = smaller_recovery(rows, labels)
        if recovery == "factors":
            np.save(folder / layout.DECLARE_FACTORS, np.ascontiguousarray(factors_LC))
        else:
            write_index(exact_index(votes_NL @ factors_LC), folder / layout.DECLARE_ROWS)
        return DeclareSection(rank=factors_LC.shape[1], neighbours=config.neighbours, recovery=recovery)

    @torch.no_grad()
    def decided(self, scores_QL: NDArray[np.float32]) -> NDArray[np.bool_]:
        """False where rows with other labels lie as near as the last neighbour: which of them votes is rounding.

        Found by taking the vote twice with all such rows tied, once for the lower rows and once for the higher.
        """
        votes_NL, neighbours = self.model.votes_NL, self.model.config.neighbours
        if neighbours >= votes_NL.shape[0]:
            return super().decided(scores_QL)
        similarities_QN = self._similarities()
        margin_Q1 = SIMILARITY_ROUNDING * np.abs(similarities_QN).max(axis=1, keepdims=True)
        boundary_Q1 = -np.partition(-similarities_QN, neighbours - 1, axis=1)[:, neighbours - 1 : neighbours]
        near_QN = np.abs(similarities_QN - boundary_Q1) <= margin_Q1
        tied_QN = np.where(near_QN, boundary_Q1, similarities_QN)
        lower_QL = vote(tied_QN, votes_NL, neighbours)
        higher_QL = vote(tied_QN[:, ::-1], votes_NL[::-1], neighbours)
        return alike(lower_QL, higher_QL)

    def _similarities(self) -> NDArray[np.float32]:
        predicted_QC = self.model(self.samples) * self.model.scales_C
        similarities_NQ: NDArray[np.float32] = self.model.votes_NL @ (self.model.factors_LC @ predicted_QC.T).numpy()
        return similarities_NQ.T


def smaller_recovery(rows: int, labels: int) -> Recovery:
    """Factors take labels x rank numbers, rows of Z rows x rank; they give the same similarities."""
    return "factors" if labels <= rows else "rows"
