"""One call for a whole batch, and each value alone when that fails, so that one bad row fails only its own request."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from service.errors import EngineFailed, InvalidRequest, RequestError, ShardUnavailable

logger = logging.getLogger(__name__)

# What says itself what is wrong, and is no fault of the model.
UNDERSTOOD = (InvalidRequest, ShardUnavailable)

Value = TypeVar("Value")
Result = TypeVar("Result")


class Failure(NamedTuple):
    """What a value has instead of a result; no error where nobody waited for the result any more."""

    error: RequestError | None


def call_isolated(
    call: Callable[[Sequence[Value]], Sequence[Result]], values: Sequence[Value], wanted: Callable[[int], bool]
) -> Sequence[Result | Failure]:
    """Results of one call for all values, or of one call for each value when the first one raises.

    The causes are logged with their stack, unless they are understood; the errors returned do not show them,
    but name the incident that the log has them under.

    Args:
        call: one result for each value, in order.
        values: at least one.
        wanted: whether the value at a position is still worth a call of its own.

    Returns:
        A result or a `Failure` for each value, in order.
    """
    try:
        return _checked(call, values)
    except Exception as error:
        if not isinstance(error, UNDERSTOOD):
            logger.error("the model failed on a batch of %d rows", len(values), exc_info=error)
    return [_alone(call, value) if wanted(i) else Failure(None) for i, value in enumerate(values)]


def _alone(call: Callable[[Sequence[Value]], Sequence[Result]], value: Value) -> Result | Failure:
    try:
        return _checked(call, [value])[0]
    except UNDERSTOOD as error:
        return Failure(error)
    except Exception as error:
        # Ids of requests stay with the client: this one takes the way back, and the client's log has both.
        incident = f"{random.getrandbits(64):016x}"
        logger.error("the model failed on a query", exc_info=error, extra={"fields": {"incident": incident}})
        return Failure(EngineFailed(f"the model failed on this request; the service's log has the cause: {incident}"))


def _checked(call: Callable[[Sequence[Value]], Sequence[Result]], values: Sequence[Value]) -> Sequence[Result]:
    results = call(values)
    if len(results) != len(values):
        raise RuntimeError(f"expected {len(values)} results, one for each row of the batch, found {len(results)}")
    return results
