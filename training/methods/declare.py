"""DECLARE: regress to a compressed label matrix, recover labels from the nearest training rows.

The label matrix Y (N x L) is compressed by a truncated SVD; a small network maps a query to its row of Z = Y V_c;
labels are recovered by a similarity-weighted vote of the nearest training rows.

With orthonormal V_c, the similarities of all training rows to a predicted row z are exactly Y (V_c z). Serving may
therefore keep the factors V_c (L x c) beside the sparse Y it votes with anyway, instead of the dense Z (N x c): the two
are equal, and the smaller is exported.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from torch import Tensor, nn

from training import losses
from training.data.batches import Bags, Batch, Positives
from training.data.dataset import Dataset
from training.encoders import EncoderConfig, new_encoder
from training.methods.base import MethodConfig, Model, Shape, Tables, settled
from training.svd import right_factors

FLAT = 1e-5


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

    def resolved(self, shape: Shape) -> DeclareConfig:
        """The rank from L, no larger than the matrix allows."""
        wanted = self.rank or (100 if shape.label_count <= 1000 else 200)
        return self.model_copy(update={"rank": min(wanted, shape.label_count, shape.train_rows)})


class Declare(Model):
    """DECLARE; ``config`` and ``encoder`` must be resolved."""

    Config = DeclareConfig
    factors_LC: Tensor
    scales_C: Tensor

    def __init__(self, config: DeclareConfig, encoder: EncoderConfig, shape: Shape) -> None:
        super().__init__()
        self.config = config
        self.encoder = new_encoder(encoder, shape)
        self.head = nn.Linear(self.encoder.output_width, settled(config.rank))

    @classmethod
    def encoder_config(cls, config: DeclareConfig, encoder: EncoderConfig, shape: Shape) -> EncoderConfig:
        """One hidden layer of 256 units."""
        return encoder if encoder.widths is not None else encoder.model_copy(update={"widths": (256,)})

    @classmethod
    def make_tables(cls, config: DeclareConfig, dataset: Dataset, seed: int) -> Tables:
        """Factors V_c, deviations of the columns of Z, and the rows of Y that vote."""
        targets_NL, rank = dataset.train.targets, settled(config.rank)
        if config.rows == "unit":
            targets_NL = unit_rows(targets_NL)
        factors_LC = right_factors(targets_NL, rank, seed)
        scales_C = _deviations(targets_NL @ factors_LC) if config.scaling == "column" else np.ones(rank)
        return {
            "factors": factors_LC,
            "scales": scales_C.astype(np.float32),
            "votes.indptr": targets_NL.indptr.astype(np.int64),
            "votes.indices": targets_NL.indices.astype(np.int32),
            "votes.data": targets_NL.data.astype(np.float32),
        }

    def attach(self, tables: Tables) -> None:
        """Take factors, scales and voting rows."""
        self.register_buffer("factors_LC", self.tensor(tables["factors"]), persistent=False)
        self.register_buffer("scales_C", self.tensor(tables["scales"]), persistent=False)
        csr = (tables["votes.data"], tables["votes.indices"], tables["votes.indptr"])
        self.votes_NL = csr_array(csr, shape=(len(tables["votes.indptr"]) - 1, len(tables["factors"])))

    def forward(self, bags: Bags) -> Tensor:
        """Predicted rows of Z divided by the column scales, float32 (Q, C)."""
        output_QC: Tensor = self.head(self.encoder(bags))
        return output_QC

    def loss(self, batch: Batch) -> Tensor:
        """Distance between predicted and true rows of Z."""
        target_QC = self.compress(batch.positives, len(batch)) / self.scales_C
        distance = losses.squared_error if self.config.loss == "squared" else losses.cosine_distance
        return distance(self(batch.bags), target_QC)

    def compress(self, positives: Positives, queries: int) -> Tensor:
        """Rows of Z = Y V_c for the batch's labels, float32 (Q, C)."""
        relevances_P = positives.relevances
        if self.config.rows == "unit":
            squares_Q = torch.zeros(queries, device=relevances_P.device)
            squares_Q.index_add_(0, positives.queries, relevances_P.square())
            relevances_P = relevances_P / squares_Q.sqrt()[positives.queries]
        rows_PC = self.factors_LC[positives.labels] * relevances_P[:, None]
        return torch.zeros(queries, rows_PC.shape[1], device=rows_PC.device).index_add_(0, positives.queries, rows_PC)

    def score(self, bags: Bags) -> Tensor:
        """Votes of the nearest training rows."""
        predicted_QC = self(bags) * self.scales_C
        similarities_QN = self.votes_NL @ (self.factors_LC @ predicted_QC.T).cpu().numpy()
        return torch.from_numpy(vote(similarities_QN.T, self.votes_NL, self.config.neighbours)).to(predicted_QC.device)

    def scores_per_query(self, label_count: int) -> int:
        """A similarity to every training row comes before the labels' scores."""
        return max(label_count, int(self.votes_NL.shape[0]))

    def activations_per_row(self) -> int:
        """Predicted and true rows and their gradients."""
        return 4 * self.head.out_features


def unit_rows(matrix: csr_array) -> csr_array:
    """The same matrix with every row that is not empty scaled to unit Euclidean length."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    lengths = np.sqrt(np.bincount(rows, weights=matrix.data.astype(np.float64) ** 2, minlength=matrix.shape[0]))
    return csr_array(
        ((matrix.data / lengths[rows]).astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape
    )


def _deviations(rows_NC: NDArray[np.float32]) -> NDArray[np.float64]:
    """Deviation of each column; a column that hardly varies keeps its own size, so that it is not blown up."""
    deviations_C = rows_NC.std(axis=0, dtype=np.float64)
    sizes_C = np.sqrt(np.square(rows_NC, dtype=np.float64).mean(axis=0))
    scales_C = np.where(deviations_C > FLAT * sizes_C.max(), deviations_C, sizes_C)
    return np.where(scales_C > 0, scales_C, 1.0)


def vote(similarities_QN: np.ndarray, votes_NL: csr_array, neighbours: int) -> np.ndarray:
    """Label scores: each of the nearest rows adds its similarity to its labels.

    A negative similarity counts as 0: a neighbour in name only must not take votes away. Ties between rows go to the
    lower row.

    Args:
        similarities_QN: inner products of predicted and training rows.
        votes_NL: labels of the training rows.
        neighbours: how many rows vote.

    Returns:
        float32 (Q, L).
    """
    queries, rows = nearest(similarities_QN, neighbours)
    weights = np.maximum(similarities_QN[queries, rows], 0)
    weights_QN = csr_array((weights, (queries, rows)), shape=similarities_QN.shape)
    scores_QL: np.ndarray = (weights_QN @ votes_NL).toarray().astype(np.float32)
    return scores_QL


def nearest(similarities_QN: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """The most similar rows of every query, ties by row.

    Returns:
        Query and row of each pair, int64 (Q * min(neighbours, N),).
    """
    count = min(neighbours, similarities_QN.shape[1])
    # Sorting all N rows of a query would dwarf everything else: only those that reach the count-th value are sorted.
    floor_Q = np.partition(similarities_QN, -count, axis=1)[:, -count]
    queries, rows = np.nonzero(similarities_QN >= floor_Q[:, None])
    order = np.lexsort((rows, -similarities_QN[queries, rows], queries))
    starts_Q = np.searchsorted(queries, np.arange(len(similarities_QN)))
    kept = order[np.arange(len(order)) - starts_Q[queries] < count]
    return queries[kept], rows[kept]
