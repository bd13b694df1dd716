"""What the protocol says about the server and its models before they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from service.inference.schemas import EXTENSIONS, ModelMetadata, ServerMetadata, TensorMetadata
from service.inference.signature import Spec, inputs_of, outputs_of
from service.models.model import Model
from service.models.registry import Registry

SERVER = "xmcserve"


def server_metadata() -> ServerMetadata:
    """The server's name, version and extensions."""
    return ServerMetadata(name=SERVER, version=version(SERVER), extensions=list(EXTENSIONS))


def model_metadata(model: Model, registry: Registry) -> ModelMetadata:
    """A model's tensors, and the versions of it that are loaded."""
    return ModelMetadata(
        name=model.name,
        versions=[one.version for one in registry.models if one.name == model.name],
        platform=f"{SERVER}_{model.method}",
        inputs=_tensors(inputs_of(model)),
        outputs=_tensors(outputs_of(model)),
    )


def full_name(name: str, version: str = "") -> str:
    """A model's name and version, which may be empty, as `Registry.get` takes them."""
    return f"{name}:{version}" if version else name


def _tensors(specs: Sequence[Spec]) -> list[TensorMetadata]:
    return [TensorMetadata(name=name, datatype=datatype, shape=list(shape)) for name, datatype, shape in specs]
