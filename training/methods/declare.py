"""DECLARE: regress to a compressed label matrix, recover labels from the nearest training rows.

The label matrix Y (N x L) is compressed by a truncated SVD; a small network maps a query to its row of Z = Y V_c;
labels are recovered by a similarity-weighted vote of the nearest training rows (`training.voting`).

With orthonormal V_c, the similarities of all training rows to a predicted row z are exactly Y (V_c z). Serving may
therefore keep the factors V_c (L x c) beside the sparse Y it votes with anyway, instead of the dense Z (N x c): the two
are equal, and the smaller is exported. Weights of the labels and lengths of the rows are numbers of the factors' and
the votes' rows, and change nothing of this.

``compression="neighbours"`` is the authors' future work: rows of Z that are free, rather than Y times factors
(`training.projection`). There the rows themselves are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor, nn

from training import losses
from training.compression import Projected, column_deviations, kept_lengths, row_lengths, tail_weights, unit_rows
from training.data.batches import Bags, Batch, Positives
from training.data.dataset import Dataset
from training.encoders import EncoderConfig, new_encoder
from training.methods.base import MethodConfig, Model, Shape, Tables, settled
from training.projection import preserve_neighbours, projection_bytes
from training.svd import right_factors, workspace_bytes
from training.voting import merge_duplicates, vote

TINY = 1e-12

# Makes the factors (L, C) of label rows (G, L) of a rank, by a seed: see `training.svd.right_factors`.
Factorise = Callable[[csr_array, int, int], NDArray[np.float32]]


class DeclareConfig(MethodConfig):
    """Options of DECLARE."""

    name: Literal["declare"] = "declare"
    rank: int | None = Field(
        default=None, ge=1, description="c, width of the compressed label space; None: 100 up to 1,000 labels, else 200"
    )
    neighbours: int = Field(default=25, ge=1, description="q, training rows that vote")
    loss: Literal["squared", "cosine"] = Field(
        default="squared", description="distance between predicted and true row of Z"
    )
    rows: Literal["given", "unit"] = Field(
        default="given",
        description="unit: rows of Y are scaled to unit length, so that many labels do not make a neighbour",
    )
    scaling: Literal["none", "column"] = Field(
        default="none", description="column: every column of Z is regressed at unit deviation"
    )
    compression: Literal["svd", "neighbours"] = Field(
        default="svd", description="of Y to Z; neighbours: inner products of near rows come first, by projection"
    )
    tail_weighting: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="columns of Y are weighted by inverse propensities to this power before compression; votes are not",
    )
    similarity: Literal["inner_product", "cosine"] = Field(
        default="inner_product",
        description="of predicted and training rows of Z; cosine: rows that the rank keeps little of are as near",
    )
    vote_temperature: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="t: a neighbour's vote weighs exp(similarity / t), as a share of all; 0: its similarity",
    )

    def resolved(self, shape: Shape) -> DeclareConfig:
        """The rank from L, no larger than the matrix allows."""
        wanted = self.rank or (100 if shape.label_count <= 1000 else 200)
        return self.model_copy(update={"rank": min(wanted, shape.label_count, shape.train_rows)})


class Declare(Model):
    """DECLARE; ``config`` and ``encoder`` must be resolved.

    Attributes:
        factors_LC: V_c, each label's row times its weight; not with ``compression="neighbours"``.
        rows_GC: rows of Z instead, of the distinct training rows.
        scales_C: what the network's outputs are multiplied by.
        weights_L: weights of the labels.
        votes_GL: labels of the distinct training rows.
        counts_G: training rows that each of them stands for.
        lengths_G: what the inner products with each of them are divided by.
        groups_N: which of them a training row is; for training with ``compression="neighbours"`` alone.
    """

    Config = DeclareConfig
    factors_LC: Tensor
    rows_GC: Tensor
    scales_C: Tensor
    weights_L: Tensor

    def __init__(self, config: DeclareConfig, encoder: EncoderConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = new_encoder(encoder, shape)
        self.head = nn.Linear(self.encoder.output_width, settled(config.rank))
        self.label_count = shape.label_count
        self.voting_rows = shape.train_rows  # at most

    @classmethod
    def encoder_config(cls, config: DeclareConfig, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """One hidden layer of 256 units."""
        return encoder if encoder.widths is not None else encoder.model_copy(update={"widths": (256,)})

    @classmethod
    def make_tables(
        cls, config: DeclareConfig, dataset: Dataset, seed: int, factorise: Factorise = right_factors
    ) -> Tables:
        """The distinct rows of Y that vote, what Z is computed from, and the sizes of its columns and rows.

        Args:
            config: resolved.
            dataset: what the run is fitted to.
            seed: of the factors and the projection.
            factorise: what makes the factors.
        """
        rank, unit = settled(config.rank), config.rows == "unit"
        votes_GL, groups_N = merge_duplicates(unit_rows(dataset.train.targets) if unit else dataset.train.targets)
        _, first_G = np.unique(groups_N, return_index=True)
        counts_G = np.bincount(groups_N).astype(np.int32)
        weights_L = tail_weights(dataset, config.tail_weighting)
        weighted_GL = csr_array(votes_GL * weights_L)
        rows_GL = unit_rows(weighted_GL) if unit else weighted_GL
        # Every row as often as it occurs: the factors are those of all rows.
        factors_LC = factorise(csr_array(rows_GL * np.sqrt(counts_G, dtype=np.float32)[:, None]), rank, seed)
        if config.compression == "svd":
            z: Iterable[NDArray[np.float32]] = Projected(rows_GL, factors_LC)
            tables: dict[str, NDArray[Any]] = {"factors": factors_LC * weights_L[:, None]}
            # Votes times factors are rows of Z, but as long as the weighted votes.
            lengths_G = row_lengths(weighted_GL) if unit else np.ones(len(counts_G))
        else:
            rows_GC = preserve_neighbours(rows_GL, rows_GL @ factors_LC, config.neighbours, seed)
            z = [rows_GC]
            tables = {"rows": rows_GC, "groups": groups_N.astype(np.int32)}
            lengths_G = np.ones(len(counts_G))
        if config.similarity == "cosine":
            lengths_G = lengths_G * kept_lengths(z, row_lengths(rows_GL))
        scales_C = column_deviations(z, counts_G) if config.scaling == "column" else np.ones(rank)
        return tables | {
            "scales": scales_C.astype(np.float32),
            "lengths": np.where(lengths_G > 0, lengths_G, 1).astype(np.float32),
            "weights": weights_L,
            "votes.indptr": votes_GL.indptr.astype(np.int64),
            "votes.indices": votes_GL.indices.astype(np.int32),
            "votes.data": votes_GL.data.astype(np.float32),
            "votes.counts": counts_G,
            "votes.points": dataset.points[first_G],
        }

    @classmethod
    def kept_tables(cls, tables: Tables, weights: Mapping[str, Tensor]) -> Tables:
        """All but what the loss alone reads."""
        return {name: table for name, table in tables.items() if name not in ("groups", "weights")}

    def attach(self, tables: Tables) -> None:
        """Take over what Z is computed from, its sizes, and the rows that vote."""
        self.voting_rows = count = len(tables["votes.indptr"]) - 1
        csr = (tables["votes.data"], tables["votes.indices"], tables["votes.indptr"])
        self.votes_GL = csr_array(csr, shape=(count, self.label_count))
        # Artifacts older than these tables hold every row, and compare by inner product.
        self.counts_G = tables.get("votes.counts", np.ones(count, dtype=np.int32))
        self.lengths_G = tables.get("lengths", np.ones(count, dtype=np.float32))
        self.groups_N = tables.get("groups")
        weights_L = tables.get("weights", np.ones(self.label_count, dtype=np.float32))
        name, table = ("factors_LC", "factors") if self.config.compression == "svd" else ("rows_GC", "rows")
        for buffer, array in ((name, tables[table]), ("scales_C", tables["scales"]), ("weights_L", weights_L)):
            self.register_buffer(buffer, self.tensor(array), persistent=False)

    def forward(self, bags: Bags) -> Tensor:
        """Predicted rows of Z divided by the column scales, float32 (Q, C)."""
        output_QC: Tensor = self.head(self.encoder(bags))
        return output_QC

    def loss(self, batch: Batch) -> Tensor:
        """Distance between predicted and true rows of Z."""
        target_QC = self.true_rows(batch) / self.scales_C
        distance = losses.squared_error if self.config.loss == "squared" else losses.cosine_distance
        return distance(self(batch.bags), target_QC)

    def true_rows(self, batch: Batch) -> Tensor:
        """The batch's rows of Z, float32 (Q, C)."""
        if self.config.compression == "svd":
            return self.compress(batch.positives, len(batch))
        return self.rows_GC[self.tensor(settled(self.groups_N)[batch.rows])]

    def compress(self, positives: Positives, queries: int) -> Tensor:
        """Rows of Z = Y V_c for the batch's labels, float32 (Q, C)."""
        relevances_P = positives.relevances
        if self.config.rows == "unit":
            squares_P = (relevances_P * self.weights_L[positives.labels]).square()
            squares_Q = torch.zeros(queries, device=squares_P.device).index_add_(0, positives.queries, squares_P)
            relevances_P = relevances_P / squares_Q.sqrt()[positives.queries]
        rows_PC = self.factors_LC[positives.labels] * relevances_P[:, None]
        return torch.zeros(queries, rows_PC.shape[1], device=rows_PC.device).index_add_(0, positives.queries, rows_PC)

    def embed(self, output_QC: Tensor) -> Tensor:
        """What is compared with the rows of Z: the network's outputs in the scale of Z, or of unit length."""
        predicted_QC = output_QC * self.scales_C
        if self.config.similarity == "inner_product":
            return predicted_QC
        return predicted_QC / predicted_QC.square().sum(dim=1, keepdim=True).clamp(min=TINY).sqrt()

    def score(self, bags: Bags) -> Tensor:
        """Votes of the nearest training rows."""
        output_QC = self(bags)
        similarities_QG = self.similarities(self.embed(output_QC))
        neighbours, temperature = self.config.neighbours, self.config.vote_temperature
        scores_QL = vote(similarities_QG, self.votes_GL, self.counts_G, neighbours, temperature)
        return torch.from_numpy(scores_QL).to(output_QC.device)

    def similarities(self, embedded_QC: Tensor) -> NDArray[np.float32]:
        """To every distinct training row, (Q, G)."""
        if self.config.compression == "svd":
            products_QG: NDArray[np.float32] = (self.votes_GL @ (self.factors_LC @ embedded_QC.T).cpu().numpy()).T
        else:
            products_QG = (embedded_QC @ self.rows_GC.T).cpu().numpy()
        similarities_QG: NDArray[np.float32] = np.divide(products_QG, self.lengths_G)
        return similarities_QG

    def scores_per_query(self, label_count: int) -> int:
        """A similarity to every distinct training row comes before the labels' scores."""
        return max(label_count, self.voting_rows)

    def scoring_floats(self, queries: int, label_count: int) -> int:
        """Similarities; beside them copies that find the nearest, later scores of labels in double and single."""
        return queries * (self.voting_rows + 3 * max(self.voting_rows, label_count))

    def activations_per_row(self) -> int:
        """Predicted and true rows and their gradients, above the encoder's layers."""
        return 4 * self.head.out_features + self.encoder.activations_per_row()

    def table_bytes(self, dataset: Dataset) -> int:
        """Factors of the labels or rows of Z, and the voting rows, beside those of the data set."""
        rows, labels = dataset.train.targets.shape
        compressed = (labels if self.config.compression == "svd" else rows) * self.head.out_features
        numbers = compressed + 2 * dataset.train.targets.nnz + 6 * rows + labels
        return numbers * np.float32().nbytes

    def making_bytes(self, dataset: Dataset) -> int:
        """The workspace of the SVD, or of the projection that follows it, beside what they make."""
        (rows, labels), rank = dataset.train.targets.shape, self.head.out_features
        workspace = workspace_bytes(rows, labels, rank)
        if self.config.compression == "neighbours":
            workspace = max(workspace, projection_bytes(rows, rank))
        return self.table_bytes(dataset) + workspace
