"""What a batch costs apart from its tokens, measured when a model is loaded.

A short query in a batch with a long one is padded to its length. Where tokens are dear (a transformer on a CPU), two
batches are cheaper than that; where a batch is (an exact search through many labels, a GPU), one is. `Limits` draws the
line at as many tokens of padding as cost what a batch of its own would.
"""

from __future__ import annotations

import math

from service.engine import Answer, Engine

ROWS = (1, 8)
RUNS = 2


def batch_cost_in_tokens(engine: Engine) -> float:
    """How many tokens cost as much as one more batch; infinitely many where tokens cost nothing.

    Args:
        engine: warmed up, with golden queries.
    """
    bag = max(engine.prepare(engine.golden_queries), key=lambda bag: bag.ids.size)
    lone, several = (
        min((engine.run([bag] * rows, 1) for _ in range(RUNS)), key=lambda answer: answer.encode_seconds)
        for rows in ROWS
    )
    tokens = max(1, bag.ids.size)
    token_seconds = (several.encode_seconds - lone.encode_seconds) / (tokens * (ROWS[1] - ROWS[0]))
    if token_seconds <= 0:
        return math.inf
    return max(0.0, _seconds(lone) / token_seconds - tokens)


def _seconds(answer: Answer) -> float:
    return answer.encode_seconds + answer.search_seconds
