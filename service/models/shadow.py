"""Shadows: versions that are asked what another is asked, and whose answers are compared and thrown away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

from service.batching.client import Served
from service.metrics import ShadowMetrics
from service.models.model import Model
from service.models.queries import Labelled, Query, Wish
from service.schemas import label_ids

Answers = asyncio.Future[list[Served[Labelled]]]


class Shadow:
    """A version that follows the others of its name.

    Args:
        model: the version.
        share: of the requests that it is asked, 0 to 1.
        metrics: what the comparison says.
    """

    def __init__(self, model: Model, share: float, metrics: ShadowMetrics) -> None:
        self.model = model
        self._share = share
        self._metrics = metrics

    def follow(self, served: Answers, queries: Sequence[Query], wish: Wish) -> None:
        """Ask the same, and compare when both have answered.

        A shadow without room drops the request: it must not slow down who is waited for.

        Args:
            served: the answers that somebody waits for.
            queries: of the request.
            wish: of the request.
        """
        if random.random() >= self._share:
            return
        if not self.model.has_room(len(queries)):
            self._metrics.count("dropped")
            return
        mirrored = self.model.submit(queries, wish._replace(explain=False))
        began, seconds = time.monotonic(), dict[Answers, float]()

        def on_answer(future: Answers) -> None:
            seconds[future] = time.monotonic() - began
            if len(seconds) == 2:
                self._compare(served, mirrored, seconds[mirrored] - seconds[served])
            elif _has_failed(served):
                mirrored.cancel()  # there will be nothing to compare

        served.add_done_callback(on_answer)
        mirrored.add_done_callback(on_answer)

    def _compare(self, served: Answers, mirrored: Answers, delay_seconds: float) -> None:
        if _has_failed(served):
            self._metrics.count("dropped")
        elif _has_failed(mirrored):
            self._metrics.count("failed")
        else:
            self._metrics.count("compared")
            self._metrics.delay_seconds.observe(delay_seconds)
            for one, other in zip(served.result(), mirrored.result(), strict=True):
                self._metrics.agreement.observe(agreement(one.result[0], other.result[0]))


def agreement(served: bytes, mirrored: bytes) -> float:
    """Share of labels that two predictions have in common, of the longer one's; 1 where both have none."""
    one, other = label_ids(served), label_ids(mirrored)
    longest = max(len(one), len(other))
    return len(one & other) / longest if longest else 1.0


def _has_failed(future: Answers) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
