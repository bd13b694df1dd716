"""An answered request as it crosses to the process that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from service.models.queries import Query


class Record(NamedTuple):
    """One request with its answers.

    Attributes:
        time_us: microsecond since 1970 at which it was answered.
        request_id: of the request.
        model: name of the model that answered.
        version: of its bundle.
        k: labels wanted for each query.
        queries: of the request.
        predictions: the JSON of a `Prediction` for each query.
        seconds: from the request's head to the end of its answer.
    """

    time_us: int
    request_id: str
    model: str
    version: str
    k: int
    queries: Sequence[Query]
    predictions: Sequence[bytes]
    seconds: float
