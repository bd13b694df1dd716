"""From answers to tensors."""

from __future__ import annotations

from collections.abc import Sequence

from service.inference.signature import LABEL, SCORE, Spec
from service.inference.tensors import Tensor
from service.models.model import Model
from service.schemas import LARGEST_FLOAT32, PredictRequest, decode_prediction

# Where a query has fewer labels than others. JSON has no number that is none, so it is the least that 32 bits hold.
PADDING = ("", "", -LARGEST_FLOAT32)


def width(model: Model, asked: PredictRequest) -> int:
    """Labels in each row of the answer to a request."""
    return min(asked.k, model.label_count)


def tensors_of(outputs: Sequence[Spec], predictions: Sequence[bytes], width: int) -> list[Tensor]:
    """The outputs of a model.

    Args:
        outputs: which are wanted, in which order.
        predictions: JSON of each query's `Prediction`. Parsing it here costs the way of `POST /predict` nothing.
        width: labels in each row; after those of a query there is padding, empty texts with the least of all scores.

    Returns:
        Tensors of shape (Q, width).
    """
    labels = []
    for prediction in predictions:
        row = decode_prediction(prediction)
        labels += row + [PADDING] * (width - len(row))
    columns = {LABEL.name: 0, SCORE.name: 2}
    return [
        Tensor(name, datatype, (len(predictions), width), [label[columns.get(name, 1)] for label in labels])
        for name, datatype, _ in outputs
    ]
