"""The transformer encoder: a pretrained model's hidden vectors, pooled over the tokens of a text.

Texts travel in the containers of bags: ids in reading order, each with the value 1, so that the padding of a batch
(value 0) is at the same time what attention must not see.

Letters: Q queries, T tokens of the longest text, D dimensions, N rows of a data set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from scipy.sparse import csr_array
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from training.data.batches import Bags
from training.encoders import pretrained
from training.encoders.base import Encoder, EncoderError, fully_connected, layer_activations
from training.encoders.features import FeatureTable

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from training.data.dataset import Dataset

# Padded tokens of one run: rows of like length go together, and memory is bounded where many rows come at once.
TOKENS_AT_ONCE = 8192
FLOAT_BYTES = 4
TINY = 1e-12


class TransformerConfig(BaseModel):
    """Options of a transformer encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    order: ClassVar[Literal["sequence"]] = "sequence"
    heading_weight: ClassVar[float] = 0.0  # attention finds headings by itself
    piece_count: ClassVar[int] = 0

    kind: Literal["transformer"] = "transformer"
    model: str = Field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        min_length=1,
        description="folder with config.json, tokenizer.json and weights, or a name on the Hugging Face hub",
    )
    pooling: Literal["mean", "cls"] = Field(default="mean", description="mean of all tokens, or the first one alone")
    layers: int | None = Field(default=None, ge=1, description="the first so many layers are used; None: all of them")
    frozen: bool = Field(default=False, description="leave the transformer as it is: each row then passes it once")
    widths: tuple[PositiveInt, ...] = Field(default=(), description="units of each layer above the pooled vector")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="share of pooled and hidden units dropped in training, above the model"
    )
    max_tokens: int = Field(
        default=128, ge=1, description="tokens of a point's text, special ones included, beyond which it is cut off"
    )
    max_label_tokens: int | None = Field(
        default=32, ge=1, description="the same for the text of a label; None: as many as of a point"
    )
    architecture: dict[str, Any] | None = Field(default=None, description="None: what the model's config.json says")

    def resolved(self) -> Self:
        """The same options with what the model's folder says, so that the model can be built without it.

        Raises:
            EncoderError: the model cannot be had, or has fewer layers.
        """
        architecture = self.architecture or pretrained.read_architecture(pretrained.model_folder(self.model))
        count = pretrained.layer_count(architecture)
        if self.layers is not None and self.layers > count:
            raise EncoderError(f"encoder.layers: expected at most the {count} of {self.model}, found {self.layers}")
        return self.model_copy(update={"architecture": architecture, "layers": self.layers or count})

    def tokenizer(self, texts: Iterable[str]) -> Tokenizer:
        """The model's own; it learns nothing from the texts.

        Raises:
            EncoderError: the model cannot be had, or a text's tokens would all be special ones.
        """
        tokenizer = pretrained.read_tokenizer(pretrained.model_folder(self.model))
        special = tokenizer.num_special_tokens_to_add(is_pair=False)
        for name, limit in (("max_tokens", self.max_tokens), ("max_label_tokens", self.max_label_tokens)):
            if limit is not None and limit <= special:
                raise EncoderError(f"encoder.{name}: expected more than the {special} special tokens, found {limit}")
        return tokenizer


class TransformerEncoder(Encoder):
    """A transformer, pooling, and fully connected layers above; ``config`` must be resolved."""

    means_D: Tensor
    deviations_D: Tensor

    def __init__(self, config: TransformerConfig, vocabulary: int) -> None:
        """Make the weights; ``vocabulary`` is the number of the tokenizer's ids.

        Raises:
            EncoderError: the transformer has fewer tokens or positions than texts need.
        """
        super().__init__()
        if config.architecture is None or config.layers is None:
            raise ValueError("the transformer's options must be resolved before it is built")
        self.config = config
        self.transformer = pretrained.new_transformer(config.architecture, config.layers)
        self.transformer.requires_grad_(not config.frozen)
        _check_sizes(self.transformer, config, vocabulary)
        self.turns = pretrained.turns_by_position(self.transformer)
        self.padding = self.transformer.config.pad_token_id or 0
        widths = (self.transformer.config.hidden_size, *config.widths)
        self.layers = nn.ModuleList(nn.Linear(left, right) for left, right in pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)
        self.output_width = widths[-1]
        if config.frozen:
            self.register_buffer("means_D", torch.zeros(widths[0]))
            self.register_buffer("deviations_D", torch.ones(widths[0]))
        self._features = FeatureTable()
        self.train()

    def initialise(self, dataset: Dataset) -> None:
        """Take the pretrained weights and, if they stay as they are, the deviations of the vectors they give.

        Raises:
            EncoderError: the weights cannot be had.
        """
        pretrained.load_weights(self.transformer, pretrained.model_folder(self.config.model))
        if self.config.frozen:
            vectors_ND = self._remembered(dataset.train.inputs)
            deviations_D = vectors_ND.std(dim=0, correction=0)
            self.means_D.copy_(vectors_ND.mean(dim=0))
            self.deviations_D.copy_(torch.where(deviations_D > TINY, deviations_D, 1))

    def own_weights(self) -> Iterable[nn.Parameter]:
        """The transformer's; the layers above start from nothing, as the heads do."""
        weights: Iterable[nn.Parameter] = self.transformer.parameters()
        return weights

    def train(self, mode: bool = True) -> Self:
        """Switch modes; a frozen transformer stays in evaluation mode."""
        super().train(mode)
        if self.config.frozen:
            self.transformer.eval()
        return self

    def remember(self, rows: csr_array) -> None:
        """Run rows through a frozen transformer, once and for all."""
        if self.config.frozen:
            self._remembered(rows)

    def _remembered(self, rows: csr_array) -> Tensor:
        bags = Bags.from_csr(rows, self.means_D.device)
        vectors_ND = self.read(bags, show=True)
        self._features.add(bags, vectors_ND)
        return vectors_ND

    def remembered_bytes(self, rows: csr_array) -> int:
        """What `remember` keeps: vectors and tokens."""
        width = int(self.transformer.config.hidden_size)
        return FLOAT_BYTES * (rows.shape[0] * width + rows.nnz) if self.config.frozen else 0

    def activations_remembering(self) -> int:
        """See `Encoder`: one layer's of one piece of rows, and the weights as they were read from the folder."""
        if not self.config.frozen:
            return 0
        read = sum(weight.numel() for weight in self.transformer.parameters())
        return int(read + TOKENS_AT_ONCE * 12 * self.transformer.config.hidden_size)

    def forward(self, bags: Bags) -> Tensor:
        """Hidden vectors float32 (Q, D)."""
        return self.layers_above(self.pooled(bags))

    def pooled(self, bags: Bags) -> Tensor:
        """Pooled vectors float32 (Q, D): remembered ones where the transformer is frozen and knows all rows."""
        if not self.config.frozen:
            return self.read(bags)
        known_QD = self._features.find(bags)
        return self.read(bags) if known_QD is None else known_QD

    def read(self, bags: Bags, *, show: bool = False) -> Tensor:
        """Pooled vectors float32 (Q, D) from the transformer, rows of like length at a time.

        Args:
            bags: sequences.
            show: whether to draw a progress bar where a person watches.
        """
        lengths_Q = bags.offsets.diff()
        order_Q = lengths_Q.argsort(descending=True, stable=True)
        parts = []
        bar = tqdm(total=len(bags), desc="texts", leave=False, disable=not show or not sys.stderr.isatty())
        with bar, torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            for rows in _pieces(order_Q, lengths_Q[order_Q].tolist()):
                parts.append(self.pool(*_padded(bags, rows)))
                bar.update(len(rows))
        if not parts:  # one of several workers may have no row of a batch
            return torch.zeros(0, self.transformer.config.hidden_size, device=bags.ids.device)
        # The inverse of the order brings each row back to its place.
        return torch.cat(parts)[order_Q.argsort()]

    def padded(self, ids_QT: Tensor, values_QT: Tensor) -> Tensor:
        """See `Encoder`."""
        return self.layers_above(self.pool(ids_QT, values_QT > 0))

    def pool(self, ids_QT: Tensor, filled_QT: Tensor) -> Tensor:
        """Pooled vectors float32 (Q, D) of padded rows; an empty row is read as one token of padding.

        Args:
            ids_QT: int64, anything where nothing is filled.
            filled_QT: bool, where tokens stand: each row's first ones.
        """
        # An empty row may attend to its first place, so that the length of others does not change what it gives.
        attended_QT = filled_QT | (torch.arange(ids_QT.shape[1], device=ids_QT.device) == 0)
        ids_QT = torch.where(filled_QT, ids_QT, self.padding)
        output = self.transformer(input_ids=ids_QT, attention_mask=attended_QT.long(), **self._positions(ids_QT))
        hidden_QTD: Tensor = output.last_hidden_state
        if self.config.pooling == "cls":
            return hidden_QTD[:, 0].float()
        shares_QT = filled_QT / filled_QT.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.matmul(shares_QT.unsqueeze(1), hidden_QTD).squeeze(1).float()

    def _positions(self, ids_QT: Tensor) -> dict[str, Tensor]:
        """Models that turn vectors by their position take one for all queries, which ONNX's operation does not."""
        if not self.turns:
            return {}
        return {"position_ids": torch.arange(ids_QT.shape[1], device=ids_QT.device).expand_as(ids_QT)}

    def layers_above(self, pooled_QD: Tensor) -> Tensor:
        """What follows pooling: vectors that stay as they are get a mean of 0 and a deviation of 1 first.

        A few dimensions of pretrained vectors dwarf the others, whose differences are what layers are to learn from.
        """
        if self.config.frozen:
            pooled_QD = (pooled_QD - self.means_D) / self.deviations_D
        return fully_connected(self.dropout(pooled_QD), self.layers, self.dropout)

    def activations_per_row(self) -> int:
        """See `Encoder`; the pooled vector counts as a layer."""
        return layer_activations([self.transformer.config.hidden_size, *self.config.widths])

    def activations_per_text(self, tokens: int) -> int:
        """Floats that the layers keep of a text for the backward pass.

        Terms are those of Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models", MLSys
        2023, equation 1. Their factors, 17 and 2.5, are for masks of a byte and no copies; here dropout keeps its masks
        as floats, and heads are copied apart and together: MiniLM of 2 and of 6 layers held 30 and 4.
        """
        if self.config.frozen:
            return 0
        shape = self.transformer.config
        per_token = 30 * shape.hidden_size + 4 * shape.num_attention_heads * tokens
        return int(shape.num_hidden_layers * tokens * per_token)

    def simplify(self) -> None:
        """Compute attention by matrix products and softmax, which every ONNX runtime has on every device."""
        self.transformer.set_attn_implementation("eager")


def _check_sizes(transformer: PreTrainedModel, config: TransformerConfig, vocabulary: int) -> None:
    known = transformer.get_input_embeddings().num_embeddings
    if vocabulary > known:
        raise EncoderError(f"{config.model}: expected a tokenizer of {known} ids at most, found {vocabulary}")
    longest = pretrained.longest_input(transformer)
    for name, limit in (("max_tokens", config.max_tokens), ("max_label_tokens", config.max_label_tokens or 0)):
        if longest is not None and limit > longest:
            raise EncoderError(f"encoder.{name}: expected at most the {longest} of {config.model}, found {limit}")


def _pieces(order_Q: Tensor, lengths_Q: list[int]) -> Iterator[Tensor]:
    """Cut rows that are ordered by falling length into pieces of at most `TOKENS_AT_ONCE` padded tokens."""
    start = 0
    while start < len(lengths_Q):
        count = max(1, TOKENS_AT_ONCE // max(1, lengths_Q[start]))
        yield order_Q[start : start + count]
        start += count


def _padded(bags: Bags, rows_P: Tensor) -> tuple[Tensor, Tensor]:
    """The ids of some rows as a rectangle, int64 (P, T) with T at least 1, and which of its places are filled."""
    starts_P = bags.offsets[rows_P]
    lengths_P = bags.offsets[rows_P + 1] - starts_P
    places_T = torch.arange(max(1, int(lengths_P.max())), device=rows_P.device)
    filled_PT = places_T < lengths_P[:, None]
    ids_PT = torch.zeros_like(filled_PT, dtype=torch.int64)
    ids_PT[filled_PT] = bags.ids[(starts_P[:, None] + places_T)[filled_PT]]
    return ids_PT, filled_PT
