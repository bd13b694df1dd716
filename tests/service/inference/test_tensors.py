from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from service.errors import InvalidRequest
from service.inference.tensors import Tensor, from_raw, tensor, to_raw

texts = st.lists(st.text(st.characters(codec="utf-8")))
numbers = {
    "INT64": st.lists(st.integers(-(2**63), 2**63 - 1)),
    "FP32": st.lists(st.floats(width=32, allow_nan=False)),
}


@given(texts)
def test_texts_are_raw_as_triton_writes_them(values: list[str]) -> None:
    raw = to_raw(Tensor("text", "BYTES", [len(values)], values))
    assert [text.decode() for text in deserialize_bytes_tensor(raw)] == values
    theirs = serialize_byte_tensor(np.array([text.encode() for text in values], dtype=object))
    assert from_raw("text", "BYTES", [len(values)], theirs.item() if values else b"").values == values


@pytest.mark.parametrize(("datatype", "dtype"), [("INT64", "<i8"), ("FP32", "<f4")])
@given(data=st.data())
def test_numbers_are_raw_as_numpy_writes_them(data: st.DataObject, datatype: str, dtype: str) -> None:
    values: list[Any] = data.draw(numbers[datatype])
    raw = np.array(values, dtype).tobytes()
    assert to_raw(Tensor("x", datatype, [len(values)], values)) == raw
    assert from_raw("x", datatype, [len(values)], raw).values == values


@pytest.mark.parametrize(
    ("datatype", "shape", "values", "words"),
    [
        ("INT64", [1], [True], "x: expected values of INT64, found one of type bool"),
        ("INT64", [1], [1.0], "x: expected values of INT64, found one of type float"),
        ("FP32", [2], [1, "a"], "x: expected values of FP32, found one of type str"),
        ("FP32", [2, 2], [1, 2.0], r"x: expected 4 values of shape \[2, 2\], found 2"),
        ("BOOL", [1], [True], "x: expected a datatype among BYTES, INT64, FP32, found 'BOOL'"),
    ],
)
def test_values_are_of_the_datatype_and_the_shape(
    datatype: str, shape: list[int], values: list[Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        tensor("x", datatype, shape, values)


def test_raw_numbers_are_whole() -> None:
    with pytest.raises(InvalidRequest, match="x: expected a multiple of 8 bytes, found 7"):
        from_raw("x", "INT64", [1], b"\0" * 7)
