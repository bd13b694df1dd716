"""From tensors to a request for labels, with the rules of `POST /predict`.

In sentences about what is wrong, text number i is `queries[i]` and row number i of a sparse matrix `features[i]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from service.bundle.manifest import FeaturesInput
from service.errors import InvalidRequest
from service.inference.signature import (
    INDICES,
    INDPTR,
    LABEL,
    SCORE,
    TEXT,
    VALUES,
    Parameters,
    Spec,
    inputs_of,
    outputs_of,
)
from service.inference.tensors import Tensor
from service.models.model import Model
from service.parsing import checked
from service.schemas import PredictRequest, check_count, check_predict
from service.settings import Settings


def question(model: Model, tensors: Sequence[Tensor], parameters: Parameters, settings: Settings) -> PredictRequest:
    """What tensors and parameters ask a model.

    Raises:
        InvalidRequest: they are not the model's inputs, or a value is out of range.
    """
    by_name = {one.name: one.values for one in _inputs(model, tensors)}
    asked: dict[str, Any] = {
        "model": f"{model.name}:{model.version}",
        "min_score": parameters.min_score,
        "timeout_ms": parameters.wait_ms,
    }
    if parameters.k is not None:
        asked["k"] = parameters.k
    if isinstance(model.input, FeaturesInput):
        asked["features"] = _rows(by_name, settings)
    else:
        asked["queries"] = by_name[TEXT.name]
    request = checked(PredictRequest, asked)
    check_predict(request, settings)
    return request


def wanted_outputs(model: Model, names: Sequence[str]) -> Sequence[Spec]:
    """The outputs that a request names, in its order; labels and scores when it names none.

    Raises:
        InvalidRequest: the model has no such output, or one is named twice.
    """
    if not names:
        return LABEL, SCORE
    known = {spec.name: spec for spec in outputs_of(model)}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"outputs: expected some of {', '.join(known)}, found {name!r}")
    if len(set(names)) < len(names):
        raise InvalidRequest(f"outputs: expected each once, found {', '.join(names)}")
    return [known[name] for name in names]


def _inputs(model: Model, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The tensors, held against the model's inputs."""
    expected = {spec.name: spec for spec in inputs_of(model)}
    if sorted(expected) != sorted(one.name for one in tensors):
        found = ", ".join(one.name for one in tensors) or "none"
        raise InvalidRequest(f"inputs: expected {', '.join(expected)} for model {model.name}, found {found}")
    for one in tensors:
        datatype = expected[one.name].datatype
        if one.datatype != datatype:
            raise InvalidRequest(f"{one.name}: expected {datatype}, found {one.datatype}")
        # Triton's clients often send a batch of texts as a column.
        if len(one.shape) != 1 and not (one.name == TEXT.name and len(one.shape) == 2 and one.shape[1] == 1):
            shapes = "[-1] or [-1, 1]" if one.name == TEXT.name else "[-1]"
            raise InvalidRequest(f"{one.name}: expected a shape {shapes}, found {[*one.shape]}")
    return tensors


def _rows(by_name: Mapping[str, Sequence[Any]], settings: Settings) -> list[dict[str, Any]]:
    """The rows of a sparse matrix."""
    indptr, indices, values = by_name[INDPTR.name], by_name[INDICES.name], by_name[VALUES.name]
    check_count("features", max(0, len(indptr) - 1), settings)
    if len(values) != len(indices):
        raise InvalidRequest(f"values: expected as many as indices, {len(indices)}, found {len(values)}")
    if (indptr[0], indptr[-1]) != (0, len(indices)) or any(begin > end for begin, end in pairwise(indptr)):
        raise InvalidRequest(f"indptr: expected numbers that rise from 0 to {len(indices)}, the length of indices")
    return [{"indices": indices[begin:end], "values": values[begin:end]} for begin, end in pairwise(indptr)]
