"""Queries of a client in, answers as JSON out: what a batcher's threads do with an engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from service.bags import Bag
from service.batching.channel import Notes
from service.engine import Engine
from service.models.queries import Asked, Labelled
from service.schemas import encode_prediction


class Prepared(NamedTuple):
    """One query as the engine takes it, and what was asked with it."""

    bag: Bag
    k: int
    min_score: float | None

    @property
    def tokens(self) -> int:
        """Length of the query."""
        return self.bag.ids.size


class Labeller:
    """An engine behind the batcher's calls.

    Args:
        engine: warmed up.
        notes: of what the model's series shall observe.
    """

    def __init__(self, engine: Engine, notes: Notes) -> None:
        self._engine = engine
        self._notes = notes

    def prepare(self, asked: Sequence[Asked]) -> list[Prepared]:
        """Queries as model input.

        Raises:
            InvalidRequest: a query is out of range.
        """
        started = time.perf_counter()
        bags = self._engine.prepare([query for query, _, _ in asked])
        self._notes.add("tokenize_seconds", time.perf_counter() - started)
        if truncated := sum(bag.truncated for bag in bags):
            self._notes.add("truncated_inputs", truncated)
        return [Prepared(bag, k, min_score) for bag, (_, k, min_score) in zip(bags, asked, strict=True)]

    def run(self, prepared: Sequence[Prepared]) -> list[Labelled]:
        """One batch for the largest k in it; answers are prefixes, so company changes none.

        Raises:
            EngineFailed: the model gave numbers that are not finite.
        """
        engine, notes = self._engine, self._notes
        answer = engine.run([one.bag for one in prepared], max(one.k for one in prepared))
        notes.add("batch_rows", len(prepared))
        notes.add("batch_padding_ratio", answer.padding_ratio)
        notes.add("encode_seconds", answer.encode_seconds)
        notes.add("search_seconds", answer.search_seconds)
        for score in answer.top.scores_QK.max(axis=1).tolist():
            notes.add("top_score", score)
        return [
            (
                encode_prediction(engine.labels, ids_K[: one.k], scores_K[: one.k], one.min_score),
                answer.encode_seconds,
                answer.search_seconds,
            )
            for one, ids_K, scores_K in zip(prepared, answer.top.ids_QK, answer.top.scores_QK, strict=True)
        ]
