"""What Triton's clients of both protocols are asked for, and what they must find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from service.models.queries import Features
from tests.bundles import Spec, write_bundle

TEXTS = ["a fast web server", "python image library", "naïve mail client"]
VECTORS = [Features((0, 7), (1.0, 0.5)), Features((29,), (-2.0,)), Features((3, 1, 2), (0.1, 0.2, 0.3))]


def write_models(folder: Path) -> None:
    """Bundles of two versions of a model of texts, and of a model of features."""
    write_bundle(folder / "mach", Spec(name="mach"))
    write_bundle(folder / "older", Spec(name="mach", seed=1))
    write_bundle(folder / "vectors", Spec(input="features", name="vectors", has_label_texts=False))


def serve_models(folder: Path) -> list[str | Path]:
    """The arguments that serve them; the version that is given last answers for its name."""
    return [argument for name in ("older", "mach", "vectors") for argument in ("--bundle", folder / name)]


def text_input(client: ModuleType, texts: Sequence[str], column: bool = False, **how: Any) -> list[Any]:
    """Texts as a client's inputs; `how` is for `set_data_from_numpy`."""
    values = np.array([text.encode() for text in texts], dtype=object)
    return [_input(client, "text", "BYTES", values.reshape(-1, 1) if column else values, **how)]


def feature_inputs(client: ModuleType, vectors: Sequence[Features], **how: Any) -> list[Any]:
    """Sparse vectors as a client's inputs."""
    indptr = np.cumsum([0, *(len(vector.indices) for vector in vectors)])
    indices = np.concatenate([vector.indices for vector in vectors])
    values = np.concatenate([vector.values for vector in vectors])
    return [
        _input(client, "indptr", "INT64", indptr.astype(np.int64), **how),
        _input(client, "indices", "INT64", indices.astype(np.int64), **how),
        _input(client, "values", "FP32", values.astype(np.float32), **how),
    ]


def _input(client: ModuleType, name: str, datatype: str, values: Any, **how: Any) -> Any:
    one = client.InferInput(name, list(values.shape), datatype)
    one.set_data_from_numpy(values, **how)
    return one


def labels_of(result: Any) -> list[list[tuple[str, float]]]:
    """Ids and scores of each row of a client's result."""
    ids_QK, scores_QK = result.as_numpy("label"), result.as_numpy("score")
    assert ids_QK.shape == scores_QK.shape
    assert scores_QK.dtype == np.float32
    return [
        [(id_ if isinstance(id_, str) else id_.decode(), float(score)) for id_, score in zip(*row, strict=True)]
        for row in zip(ids_QK.tolist(), scores_QK.tolist(), strict=True)
    ]


def predicted(predictions: Any) -> list[list[tuple[str, float]]]:
    """The same of the `predictions` of `POST /predict`: its scores as the numbers of 32 bits that they are."""
    return [[(label["id"], float(np.float32(label["score"]))) for label in one["labels"]] for one in predictions]
