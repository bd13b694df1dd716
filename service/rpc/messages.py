"""Between the messages of the protocol and what `service.inference` understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.errors import InvalidRequest
from service.inference.schemas import ModelMetadata, TensorMetadata
from service.inference.signature import Parameters
from service.inference.tensors import Tensor, from_raw, tensor, to_raw
from service.models.model import Model
from service.parsing import checked
from service.rpc.inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataResponse,
)

_CONTENTS: Mapping[str, Callable[[InferTensorContents], Sequence[Any]]] = {
    "BYTES": lambda contents: contents.bytes_contents,
    "INT64": lambda contents: contents.int64_contents,
    "FP32": lambda contents: contents.fp32_contents,
}


def parameters_of(request: ModelInferRequest) -> Parameters:
    """The parameters of a request.

    Raises:
        InvalidRequest: one is unknown or out of range, or belongs to an input or output, where none is known.
    """
    for one in (*request.inputs, *request.outputs):
        if one.parameters:
            raise InvalidRequest(f"{one.name}: expected no parameters, found {', '.join(sorted(one.parameters))}")
    given = {name: _value(parameter) for name, parameter in request.parameters.items()}
    return checked(Parameters, given)


def tensors_of(request: ModelInferRequest) -> list[Tensor]:
    """The inputs of a request, whether their values come in the inputs or raw beside them.

    Raises:
        InvalidRequest: they are not what the inputs say.
    """
    raws = request.raw_input_contents
    if not raws:
        return [_tensor(one) for one in request.inputs]
    if len(raws) != len(request.inputs) or any(one.HasField("contents") for one in request.inputs):
        raise InvalidRequest(
            f"raw_input_contents: expected all of {len(request.inputs)} inputs and no contents beside them, "
            f"found {len(raws)}"
        )
    pairs = zip(request.inputs, raws, strict=True)
    return [from_raw(one.name, one.datatype, one.shape, raw) for one, raw in pairs]


def response(request: ModelInferRequest, model: Model, tensors: Sequence[Tensor]) -> ModelInferResponse:
    """The answer to a request; its values come as those of the request did."""
    answer = ModelInferResponse(model_name=model.name, model_version=model.version, id=request.id)
    for one in tensors:
        output = answer.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
        if request.raw_input_contents:
            answer.raw_output_contents.append(to_raw(one))
        elif one.datatype == "BYTES":
            output.contents.bytes_contents.extend(text.encode() for text in one.values)
        else:
            output.contents.fp32_contents.extend(one.values)
    return answer


def metadata_response(metadata: ModelMetadata) -> ModelMetadataResponse:
    """What there is to know of a model, as a message."""
    return ModelMetadataResponse(
        name=metadata.name,
        versions=metadata.versions,
        platform=metadata.platform,
        inputs=[_described(one) for one in metadata.inputs],
        outputs=[_described(one) for one in metadata.outputs],
    )


def _described(one: TensorMetadata) -> ModelMetadataResponse.TensorMetadata:
    return ModelMetadataResponse.TensorMetadata(name=one.name, datatype=one.datatype, shape=one.shape)


def _value(parameter: InferParameter) -> object:
    chosen = parameter.WhichOneof("parameter_choice")
    return None if chosen is None else getattr(parameter, chosen)


def _tensor(one: ModelInferRequest.InferInputTensor) -> Tensor:
    values = list(_CONTENTS[one.datatype](one.contents)) if one.datatype in _CONTENTS else []
    if one.datatype == "BYTES":
        try:
            values = [text.decode() for text in values]
        except UnicodeDecodeError:
            raise InvalidRequest(f"{one.name}: expected texts in UTF-8") from None
    return tensor(one.name, one.datatype, one.shape, values)
