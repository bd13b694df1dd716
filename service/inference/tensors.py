"""Tensors of the three datatypes that models here take and give, and their raw bytes.

Raw is what Triton calls binary: numbers in little endian, row by row; each of BYTES behind its length in four bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from service.errors import InvalidRequest

_LENGTH = struct.Struct("<I")
_NUMBERS: Mapping[str, np.dtype[Any]] = {"INT64": np.dtype("<i8"), "FP32": np.dtype("<f4")}
_KINDS: Mapping[str, tuple[type, ...]] = {"BYTES": (str,), "INT64": (int,), "FP32": (int, float)}


class Tensor(NamedTuple):
    """A tensor with its values.

    Attributes:
        name: of the input or output.
        datatype: "BYTES", "INT64" or "FP32".
        shape: number of values in each dimension.
        values: in row-major order; texts for BYTES.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[Any]


def tensor(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
    """A tensor that a client has sent as values.

    Raises:
        InvalidRequest: the datatype is unknown, a value is of another kind, or there are not as many as the shape says.
    """
    kinds = _KINDS[_known(name, datatype)]
    for value in values:
        if type(value) not in kinds:  # a bool is an int to isinstance
            raise InvalidRequest(f"{name}: expected values of {datatype}, found one of type {type(value).__name__}")
    if len(values) != math.prod(shape):
        raise InvalidRequest(f"{name}: expected {math.prod(shape)} values of shape {[*shape]}, found {len(values)}")
    return Tensor(name, datatype, shape, values)


def from_raw(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """A tensor that a client has sent as raw bytes.

    Raises:
        InvalidRequest: the bytes are not such values, or not as many as the shape says.
    """
    if _known(name, datatype) == "BYTES":
        return tensor(name, datatype, shape, _texts(name, raw))
    dtype = _NUMBERS[datatype]
    if len(raw) % dtype.itemsize:
        raise InvalidRequest(f"{name}: expected a multiple of {dtype.itemsize} bytes, found {len(raw)}")
    return tensor(name, datatype, shape, np.frombuffer(raw, dtype).tolist())


def to_raw(values: Tensor) -> bytes:
    """The raw bytes of a tensor."""
    if values.datatype == "BYTES":
        texts = [text.encode() for text in values.values]
        return b"".join([part for text in texts for part in (_LENGTH.pack(len(text)), text)])
    return np.array(values.values, _NUMBERS[values.datatype]).tobytes()


def _known(name: str, datatype: str) -> str:
    if datatype not in _KINDS:
        raise InvalidRequest(f"{name}: expected a datatype among {', '.join(_KINDS)}, found {datatype!r}")
    return datatype


def _texts(name: str, raw: bytes) -> list[str]:
    """Texts out of raw bytes."""
    texts = []
    place = 0
    while place < len(raw):
        begin = place + _LENGTH.size
        place = begin + int.from_bytes(raw[place:begin], "little")
        if begin > len(raw) or place > len(raw):
            raise InvalidRequest(f"{name}: the last text ends {max(begin, place) - len(raw)} bytes too early")
        try:
            texts.append(raw[begin:place].decode())
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name}: expected texts in UTF-8, but number {len(texts)} is none") from None
    return texts
