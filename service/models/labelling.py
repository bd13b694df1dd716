"""Queries of a client in, answers as JSON out: what a batcher's threads do with an engine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from service.bags import Bag
from service.batching.channel import Notes
from service.engine import Answer, Engine
from service.errors import ShardUnavailable
from service.explanations import encode_explanations
from service.filters.allowed import Allowed
from service.filters.search import Wanted
from service.models.queries import Asked, Labelled
from service.schemas import encode_prediction
from service.sharding.partial import partial_answers


class Prepared(NamedTuple):
    """One query as the engine takes it, and what was asked with it."""

    bag: Bag
    k: int
    min_score: float | None
    allowed: Allowed | None
    explain: bool
    partial: bool

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
        self._section = engine.manifest.method.model_dump()

    def prepare(self, asked: Sequence[Asked]) -> list[Prepared]:
        """Queries as model input.

        Raises:
            InvalidRequest: a query is out of range, or its filter names what the model does not have.
        """
        started = time.perf_counter()
        bags = self._engine.prepare([query for query, *_ in asked])
        resolve = self._engine.filters.resolve
        prepared = [
            Prepared(bag, k, min_score, None if wanted is None else resolve(wanted), explain, in_part)
            for bag, (_, k, min_score, wanted, explain, in_part) in zip(bags, asked, strict=True)
        ]
        self._notes.add("tokenize_seconds", time.perf_counter() - started)
        if truncated := sum(bag.truncated for bag in bags):
            self._notes.add("truncated_inputs", truncated)
        return prepared

    def run(self, prepared: Sequence[Prepared]) -> list[Labelled]:
        """One batch for the largest k in it; answers are prefixes, so company changes none.

        Raises:
            EngineFailed: the model gave numbers that are not finite.
            ShardUnavailable: a shard does not answer, and not everybody is content without it.
        """
        engine, notes = self._engine, self._notes
        answer, in_part = self._answer(prepared)
        notes.add("batch_rows", len(prepared))
        notes.add("batch_padding_ratio", answer.padding_ratio)
        notes.add("encode_seconds", answer.encode_seconds)
        notes.add("search_seconds", answer.search_seconds)
        for score in answer.top.scores_QK.max(axis=1).tolist():
            notes.add("top_score", score)
        found = list(zip(answer.top.ids_QK, answer.top.scores_QK, strict=True))
        for place, other in answer.filtered.items():
            notes.add(f"filtered_{other.mode}", 1)
            found[place] = other.ids_K, other.scores_K
        section = self._section
        whys = {place: partial(encode_explanations, section, why) for place, why in answer.explainers.items()}
        return [
            (
                encode_prediction(
                    engine.labels,
                    ids_K[: one.k],
                    scores_K[: one.k],
                    one.min_score,
                    whys.get(place),
                    partial=in_part,
                ),
                answer.encode_seconds,
                answer.search_seconds,
            )
            for place, (one, (ids_K, scores_K)) in enumerate(zip(prepared, found, strict=True))
        ]

    def _answer(self, prepared: Sequence[Prepared]) -> tuple[Answer, bool]:
        """What the engine answers, and whether labels may be missing."""
        try:
            return self._ask(prepared), False
        except ShardUnavailable:
            if not all(one.partial for one in prepared):
                raise
        with partial_answers() as missing:
            return self._ask(prepared), bool(missing)

    def _ask(self, prepared: Sequence[Prepared]) -> Answer:
        filters = {place: Wanted(one.k, one.allowed) for place, one in enumerate(prepared) if one.allowed is not None}
        explained = [place for place, one in enumerate(prepared) if one.explain]
        ks = [one.k for one in prepared]
        return self._engine.run([one.bag for one in prepared], max(ks), filters, explained, ks)
