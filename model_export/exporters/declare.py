"""DECLARE: the regressed row of Z as a graph, the votes as CSR arrays, and the smaller of factors and rows.

Letters: Q queries, T ids of a bag, C dimensions of Z = Y V_c, G distinct training rows, L labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export.exact_search import write_exact_search
from model_export.exporters.base import Exporter, alike
from model_export.label_index import WantedIndex
from service.bundle import layout
from service.bundle.manifest import DeclareSection, Recovery
from service.search.votes import Votes
from training.methods.declare import Declare
from training.voting import last_similarities, vote

# Similarities closer than this, relative to the query's largest, may come out in another order elsewhere.
SIMILARITY_ROUNDING = 1e-5


class DeclareGraph(nn.Module):
    """Padded bags to what is compared with the rows of Z, float32 (Q, C)."""

    def __init__(self, model: Declare) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """Predicted rows of Z."""
        return self.model.embed(self.model.head(self.model.encoder.padded(ids_QT, values_QT)))


class DeclareExporter(Exporter[Declare]):
    """See `Exporter`."""

    output = "embedding"

    def graph(self) -> nn.Module:
        """See `Exporter`."""
        return DeclareGraph(self.model)

    def write_tables(self, folder: Path, index: WantedIndex) -> DeclareSection:
        """The votes of the distinct rows, and either the factors V_c or an exact search of the rows of Z."""
        config, votes_GL = self.model.config, self.model.votes_GL
        votes = Votes.from_csr(votes_GL)
        np.save(folder / layout.DECLARE_VOTES_INDPTR, votes.starts_G.astype(layout.offset_dtype(votes_GL.nnz)))
        np.save(folder / layout.DECLARE_VOTES_INDICES, votes.labels_P)
        np.save(folder / layout.DECLARE_VOTES_DATA, votes.values)
        np.save(folder / layout.DECLARE_VOTES_COUNTS, self.model.counts_G.astype(np.int32))
        recovery = smaller_recovery(*votes_GL.shape) if config.compression == "svd" else "rows"
        divided = recovery == "factors" and bool((self.model.lengths_G != 1).any())
        if divided:
            np.save(folder / layout.DECLARE_LENGTHS, self.model.lengths_G.astype(np.float32))
        if recovery == "factors":
            np.save(folder / layout.DECLARE_FACTORS, np.ascontiguousarray(self.artifact.tables["factors"]))
        else:
            write_exact_search(self._rows(), folder / layout.DECLARE_ROWS, folder / layout.DECLARE_ROW_SEARCH)
        return DeclareSection(
            rank=self.model.head.out_features,
            neighbours=config.neighbours,
            recovery=recovery,
            merged=True,
            alike=votes.alike or None,
            divided=divided or None,
            temperature=config.vote_temperature or None,
        )

    def _rows(self) -> NDArray[np.float32]:
        """The rows whose inner products with an embedding are similarities, (G, C)."""
        tables, votes_GL = self.artifact.tables, self.model.votes_GL
        rows_GC = tables["rows"] if "rows" in tables else votes_GL @ tables["factors"]
        divided_GC: NDArray[np.float32] = np.divide(rows_GC, self.model.lengths_G[:, None])
        return divided_GC

    @torch.no_grad()
    def decided(self, scores_QL: NDArray[np.float32]) -> NDArray[np.bool_]:
        """False where rows with other labels lie as near as the last neighbour: which of them votes is rounding.

        Found by taking the vote twice with all such rows tied, once for the lower rows and once for the higher.
        """
        votes_GL, counts_G, config = self.model.votes_GL, self.model.counts_G, self.model.config
        neighbours = config.neighbours
        similarities_QG = self.model.similarities(self.model.embed(self.model(self.samples)))
        boundary_Q1 = last_similarities(similarities_QG, counts_G, neighbours)[:, None]
        margin_Q1 = SIMILARITY_ROUNDING * np.abs(similarities_QG).max(axis=1, keepdims=True)
        near_QG = np.abs(similarities_QG - boundary_Q1) <= margin_Q1
        tied_QG = np.where(near_QG, boundary_Q1, similarities_QG)
        lower_QL = vote(tied_QG, votes_GL, counts_G, neighbours, config.vote_temperature)
        higher_QL = vote(tied_QG[:, ::-1], votes_GL[::-1], counts_G[::-1], neighbours, config.vote_temperature)
        return alike(lower_QL, higher_QL)


def smaller_recovery(rows: int, labels: int) -> Recovery:
    """Factors take labels x rank numbers, rows of Z rows x rank; they give the same similarities."""
    return "factors" if labels <= rows else "rows"
