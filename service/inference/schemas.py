"""The JSON of the Open Inference Protocol v2, with Triton's raw tensors: the only place where its names appear.

A body with raw tensors is the JSON followed by their bytes; a header says where the JSON ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from service.errors import InvalidRequest, MalformedBody
from service.inference.signature import Parameters
from service.inference.tensors import Tensor, from_raw, tensor, to_raw
from service.models.model import Model
from service.parsing import parse

EXTENSIONS = ("binary_tensor_data",)
EXAMPLE = {
    "parameters": {"k": 5},
    "inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a fast web server"]}],
}

_CONFIG = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class InputParameters(BaseModel):
    """The parameters of an input."""

    model_config = _CONFIG

    binary_data_size: Annotated[int, Field(ge=0)] | None = Field(None, description="Its bytes after the JSON.")


class OutputParameters(BaseModel):
    """The parameters of a requested output."""

    model_config = _CONFIG

    binary_data: bool | None = Field(None, description="Whether it comes raw, whatever binary_data_output says.")


class RequestInput(BaseModel):
    """An input: `data`, flat or in rows, or raw bytes."""

    model_config = _CONFIG

    name: str
    shape: list[Annotated[int, Field(ge=0)]]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class RequestedOutput(BaseModel):
    """An output that is wanted."""

    model_config = _CONFIG

    name: str
    parameters: OutputParameters = OutputParameters()


class InferRequest(BaseModel):
    """The JSON of a request for inference."""

    model_config = _CONFIG

    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: list[RequestInput]
    outputs: list[RequestedOutput] = []

    @property
    def output_names(self) -> list[str]:
        """The outputs that are wanted."""
        return [output.name for output in self.outputs]

    @property
    def raw_outputs(self) -> set[str]:
        """Those of them that shall come raw."""
        return {output.name for output in self.outputs if self._comes_raw(output)}

    def _comes_raw(self, output: RequestedOutput) -> bool:
        own = output.parameters.binary_data
        return self.parameters.binary_data_output if own is None else own


class AnswerTensor(BaseModel):
    """An output with its values, row after row."""

    name: str
    datatype: str
    shape: list[int]
    data: list[str | float] | None = Field(None, description="Left out where the values come raw.")
    parameters: InputParameters | None = Field(None, description="Only where they do.")


class InferResponse(BaseModel):
    """The JSON of an answer."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[AnswerTensor]


class InferError(BaseModel):
    """An error, in the protocol's words."""

    error: str


class TensorMetadata(BaseModel):
    """A tensor that a model takes or gives; -1 in its shape stands for any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """What there is to know of a model before it is asked."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(BaseModel):
    """What answers here."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(BaseModel):
    """The server lives."""

    live: bool


class ServerReady(BaseModel):
    """The server is ready."""

    ready: bool


class ModelReady(BaseModel):
    """The model is ready."""

    name: str
    ready: bool


def parse_infer(body: bytes, json_bytes: int | None) -> tuple[InferRequest, list[Tensor]]:
    """Read a request for inference, as far as that is possible without its model.

    Args:
        body: all of it.
        json_bytes: length of the JSON at its beginning; None when there is nothing else.

    Returns:
        The request and the tensors of its inputs.

    Raises:
        MalformedBody: there is no JSON.
        InvalidRequest: it is JSON of the wrong shape, or tensors are not what it says.
    """
    if json_bytes is not None and json_bytes > len(body):
        raise MalformedBody(f"expected {json_bytes} bytes of JSON, found {len(body)} bytes in all")
    request = parse(InferRequest, body[:json_bytes])
    tensors = []
    place = len(body) if json_bytes is None else json_bytes
    for one in request.inputs:
        size = one.parameters.binary_data_size
        if (size is None) == (one.data is None):
            found = "neither" if size is None else "both"
            raise InvalidRequest(f"{one.name}: expected either data or binary_data_size, found {found}")
        if size is None:
            tensors.append(tensor(one.name, one.datatype, one.shape, _flat(one.data or [])))
            continue
        if place + size > len(body):
            raise InvalidRequest(f"{one.name}: expected {size} bytes after the JSON, found {len(body) - place}")
        tensors.append(from_raw(one.name, one.datatype, one.shape, body[place : place + size]))
        place += size
    if place < len(body):
        raise InvalidRequest(f"the body has {len(body) - place} bytes more than its inputs")
    return request, tensors


def encode_infer(request: InferRequest, model: Model, tensors: Sequence[Tensor]) -> tuple[bytes, int | None]:
    """The answer to a request for inference.

    Returns:
        The body, and the length of the JSON at its beginning; None when there is nothing else.
    """
    comes_raw = request.raw_outputs
    if not request.outputs and request.parameters.binary_data_output:
        comes_raw = {one.name for one in tensors}
    raws = [to_raw(one) for one in tensors if one.name in comes_raw]
    sizes = iter(raws)
    document: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = [
        {"name": one.name, "datatype": one.datatype, "shape": one.shape}
        | ({"parameters": {"binary_data_size": len(next(sizes))}} if one.name in comes_raw else {"data": one.values})
        for one in tensors
    ]
    encoded = orjson.dumps(document)
    return b"".join((encoded, *raws)), len(encoded) if raws else None


def encode_error(detail: str) -> bytes:
    """An error as the protocol writes it."""
    return orjson.dumps({"error": detail})


def _flat(data: list[Any]) -> list[Any]:
    """The values of an input that may come in rows."""
    if all(isinstance(row, list) for row in data):
        return list(chain.from_iterable(data))
    return data
