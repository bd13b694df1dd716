"""Encoders: what turns a batch of bags into hidden vectors. Methods get theirs from `new_encoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from training.encoders.bag import BagConfig, BagEncoder
from training.encoders.base import Encoder, EncoderError
from training.encoders.transformer import TransformerConfig, TransformerEncoder

if TYPE_CHECKING:
    from training.methods.base import Shape

__all__ = [
    "BagConfig",
    "BagEncoder",
    "Encoder",
    "EncoderConfig",
    "EncoderError",
    "TransformerConfig",
    "TransformerEncoder",
    "new_encoder",
]

EncoderConfig = Annotated[BagConfig | TransformerConfig, Field(discriminator="kind")]


def new_encoder(config: EncoderConfig, shape: Shape) -> Encoder:
    """An untrained encoder of a resolved configuration.

    Raises:
        EncoderError: a pretrained model does not fit the texts.
    """
    if isinstance(config, TransformerConfig):
        return TransformerEncoder(config, shape.input_width)
    return BagEncoder(config, shape.input_width, text=shape.text)
