"""Encoders: what turns a batch of bags into hidden vectors. Methods get theirs from `new_encoder`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.encoders.bag import BagConfig, BagEncoder
from training.encoders.base import Encoder

if TYPE_CHECKING:
    from training.methods.base import Shape

__all__ = ["BagConfig", "BagEncoder", "Encoder", "EncoderConfig", "new_encoder"]

EncoderConfig = BagConfig


def new_encoder(config: EncoderConfig, shape: Shape) -> Encoder:
    """An untrained encoder of a resolved configuration."""
    return BagEncoder(config, shape.input_width, text=shape.text)
