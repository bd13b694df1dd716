"""What queries cost an engine, measured when a model is loaded, and what follows for its batches.

A short query in a batch with a long one is padded to its length. Where tokens are dear (a transformer on a CPU), two
batches are cheaper than that; where a batch is (an exact search through many labels, a GPU), one is. `Limits` draws the
line at as many tokens of padding as cost what a batch of its own would.

Runners and the event loop share the processors. Where queries are dear, a runner for each of them pays; where they are
cheap, the event loop is busy for so much of the time that one more runner only takes it from the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from service.bags import Bag
from service.engine import Answer, Engine

ROWS = (1, 8)
# A batch that takes longer is run once: it holds up the start, and other work on the machine counts for less in it.
LONG_SECONDS = 0.1
# Of the process that speaks HTTP for one query: at 64 connections, 170 to 310 µs by the machine's speed and company.
LOOP_SECONDS = 0.0003
# Processors that may be wanted at once beyond those that are there: neither runners nor the loop are always busy.
SLACK = 0.5


class Cost(NamedTuple):
    """What an engine takes.

    Attributes:
        lone_seconds: of one query alone.
        query_seconds: of one query in a small batch.
        batch_in_tokens: how many tokens cost as much as one more batch; infinitely many where tokens cost nothing.
    """

    lone_seconds: float
    query_seconds: float
    batch_in_tokens: float


def measure(engine: Engine) -> Cost:
    """Time batches of the longest golden query.

    Args:
        engine: warmed up, with golden queries.
    """
    bag = max(engine.prepare(engine.golden_queries), key=lambda bag: bag.ids.size)
    lone, several = (_quicker(engine, [bag] * rows) for rows in ROWS)
    tokens = max(1, bag.ids.size)
    lone_seconds, query_seconds = _seconds(lone), _seconds(several) / ROWS[1]
    token_seconds = (several.encode_seconds - lone.encode_seconds) / (tokens * (ROWS[1] - ROWS[0]))
    if token_seconds <= 0:
        return Cost(lone_seconds, query_seconds, math.inf)
    return Cost(lone_seconds, query_seconds, max(0.0, lone_seconds / token_seconds - tokens))


def useful_runners(processors: int, query_seconds: float) -> int:
    """How many runners of one thread pay, beside the event loop.

    Args:
        processors: that there are.
        query_seconds: of one query on a runner.
    """
    loops = LOOP_SECONDS / query_seconds  # event loops that one busy runner keeps busy
    fitting = int((processors + SLACK) / (1 + loops))
    return max(1, min(processors, fitting, math.ceil(1 / loops)))


def _quicker(engine: Engine, bags: Sequence[Bag]) -> Answer:
    """The quicker of two runs."""
    first = engine.run(bags, 1)
    return first if _seconds(first) > LONG_SECONDS else min(first, engine.run(bags, 1), key=_seconds)


def _seconds(answer: Answer) -> float:
    return answer.encode_seconds + answer.search_seconds
