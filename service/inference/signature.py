"""What models take and give as tensors, and what may be asked with them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.bundle.manifest import FeaturesInput
from service.models.model import Model
from service.schemas import Float32


class Spec(NamedTuple):
    """A tensor without its values; -1 in its shape stands for any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]


TEXT = Spec("text", "BYTES", (-1,))
# Rows of a sparse matrix: the indices and values of row i are those from indptr[i] to indptr[i + 1].
INDPTR, INDICES, VALUES = Spec("indptr", "INT64", (-1,)), Spec("indices", "INT64", (-1,)), Spec("values", "FP32", (-1,))

LABEL, SCORE = Spec("label", "BYTES", (-1, -1)), Spec("score", "FP32", (-1, -1))
LABEL_TEXT = Spec("text", "BYTES", (-1, -1))


class Parameters(BaseModel):
    """The parameters of a request for inference, by whichever protocol it comes."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    k: int | None = None
    min_score: Float32 | None = None
    timeout_ms: int | None = None
    timeout: int | None = Field(None, ge=0, description="In microseconds, as Triton's clients say it; 0 is none.")
    binary_data_output: bool = Field(False, description="Outputs are raw unless they say otherwise.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.timeout and self.timeout_ms is not None:
            raise ValueError("expected either timeout or timeout_ms, found both")
        return self

    @property
    def wait_ms(self) -> int | None:
        """After how many milliseconds the answer is worthless, or None."""
        return math.ceil(self.timeout / 1000) if self.timeout else self.timeout_ms


def inputs_of(model: Model) -> Sequence[Spec]:
    """The inputs of a model, all of which must be sent."""
    return (INDPTR, INDICES, VALUES) if isinstance(model.input, FeaturesInput) else (TEXT,)


def outputs_of(model: Model) -> Sequence[Spec]:
    """The outputs of a model; where none is asked for, the labels and their scores are sent."""
    return (LABEL, SCORE, LABEL_TEXT) if model.has_label_texts else (LABEL, SCORE)
