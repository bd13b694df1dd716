"""One loaded bundle behind its batcher: queries in, label rows and timings out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.bags import Bag, Query
from service.batching import Batcher
from service.bundle.manifest import SearchSection
from service.cost import Cost, useful_runners
from service.engine import Engine
from service.errors import RequestError
from service.metrics import Metrics
from service.queueing import DropReason, Limits, Served
from service.schemas import FeatureVector, ModelDetail, ModelSummary
from service.settings import Settings

# A CPU gains nothing from larger batches once its caches are full; everybody in the batch waits for all of it.
DEFAULT_BATCH_ROWS = {"cpu": 32, "cuda": 128}
# Under overload as much work may wait as this many lone queries take, so that an accepted one stays within ten times
# its idle latency: it waits for the queue, for the batch before it and for its own.
OVERLOAD_QUERIES = 3


class Asked(NamedTuple):
    """One query and how many labels it wants."""

    query: Query
    k: int


class Prepared(NamedTuple):
    """One query as the engine takes it."""

    bag: Bag
    k: int


class Labelled(NamedTuple):
    """The answer to one query: label rows, best first, their scores, and what its batch took."""

    ids_K: NDArray[np.int64]
    scores_K: NDArray[np.float32]
    encode_seconds: float
    search_seconds: float


def _runners(settings: Settings, device: str, cost: Cost) -> int:
    """Batches that a model computes at once."""
    if settings.runners is not None:
        return settings.runners
    return 1 if device == "cuda" else useful_runners(settings.threads, cost.query_seconds)


class Model:
    """An engine, its batcher and its series.

    Args:
        engine: of the bundle; warmed up and checked.
        settings: bounds of the batcher.
        metrics: where the model's series live.
        loop: the event loop of the waiters.
        cost: what the engine takes for queries.

    Attributes:
        runners: batches that it computes at once.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        loop: asyncio.AbstractEventLoop,
        cost: Cost,
    ) -> None:
        self.engine = engine
        self.name = engine.manifest.name
        self.version = engine.manifest.version
        self.runners = _runners(settings, engine.device, cost)
        self._batcher: Batcher[Asked, Prepared, Labelled] = Batcher(
            prepare=self._prepare,
            run=self._run,
            length=lambda prepared: prepared.bag.ids.size,
            limits=Limits(
                batch_rows=settings.max_batch_rows or DEFAULT_BATCH_ROWS[engine.device],
                batch_tokens=settings.max_batch_tokens,
                queue_rows=settings.queue_rows,
                wait_seconds=settings.max_wait_ms / 1000,
                runners=self.runners,
                padding_tokens=cost.batch_in_tokens,
                overload_seconds=OVERLOAD_QUERIES * cost.lone_seconds,
            ),
            loop=loop,
            on_drop=self._count_dropped,
            name=self.name,
        )
        method = engine.manifest.method.name
        self.metrics = metrics.model(
            self.name, self.version, method, engine.device, queued=lambda: self._batcher.queued_rows
        )
        self.metrics.ready.set_function(lambda: float(self.healthy))

    @property
    def healthy(self) -> bool:
        """False for good once a thread of the batcher has died."""
        return self._batcher.healthy

    def has_room(self) -> bool:
        """Whether one more query would be taken now."""
        return self._batcher.has_room()

    def refuse(self) -> RequestError:
        """Note that a request is refused, and say why."""
        return self._batcher.refuse()

    def submit(
        self, queries: Sequence[Query], k: int, deadline: float = math.inf
    ) -> asyncio.Future[list[Served[Labelled]]]:
        """Queue the queries of one request; see `Batcher.submit`."""
        return self._batcher.submit([Asked(query, k) for query in queries], deadline)

    async def close(self) -> None:
        """Answer what is queued and end the threads."""
        await self._batcher.close(drain=True)

    def summary(self) -> ModelSummary:
        """What `GET /v1/models` says about the model."""
        manifest = self.engine.manifest
        return ModelSummary(
            name=self.name,
            version=self.version,
            method=manifest.method.name,
            input=manifest.input.kind,
            label_count=manifest.label_count,
            device=self.engine.device,
            ready=self.healthy,
        )

    def detail(self) -> ModelDetail:
        """What `GET /v1/models/{name}` says about the model."""
        manifest = self.engine.manifest
        index = manifest.method.index if isinstance(manifest.method, SearchSection) else None
        return ModelDetail(
            **self.summary().model_dump(),
            providers=self.engine.providers,
            precision=manifest.precision,
            scores="raw" if manifest.calibration is None else "calibrated",
            propensity_weight=manifest.propensity and manifest.propensity.weight,
            method_section=manifest.method.model_dump(),
            rerank_section=manifest.rerank and manifest.rerank.model_dump(),
            index=index and index.type,
            recall=index and index.recall,
            parity=manifest.parity and manifest.parity.model_dump(),
            created_with=manifest.created_with,
            examples=self._examples(),
        )

    def _examples(self) -> list[str | FeatureVector]:
        """The golden queries, without those that the HTTP interface refuses as empty."""
        examples: list[str | FeatureVector] = []
        for golden in self.engine.manifest.golden:
            if isinstance(golden.query, str):
                if golden.query.strip():
                    examples.append(golden.query)
            elif golden.query.indices:
                examples.append(FeatureVector(indices=list(golden.query.indices), values=list(golden.query.values)))
        return examples

    # On the batcher's threads ----------------------------------------------------------------------------------------

    def _prepare(self, asked: Sequence[Asked]) -> list[Prepared]:
        started = time.perf_counter()
        bags = self.engine.prepare([one.query for one in asked])
        self.metrics.tokenize_seconds.observe(time.perf_counter() - started)
        if truncated := sum(bag.truncated for bag in bags):
            self.metrics.truncated_inputs.inc(truncated)
        return [Prepared(bag, one.k) for bag, one in zip(bags, asked, strict=True)]

    def _run(self, prepared: Sequence[Prepared]) -> list[Labelled]:
        """One batch for the largest k in it; answers are prefixes, so company changes none."""
        answer = self.engine.run([one.bag for one in prepared], max(one.k for one in prepared))
        metrics = self.metrics
        metrics.batch_rows.observe(len(prepared))
        metrics.batch_padding_ratio.observe(answer.padding_ratio)
        metrics.encode_seconds.observe(answer.encode_seconds)
        metrics.search_seconds.observe(answer.search_seconds)
        for score in answer.top.scores_QK.max(axis=1).tolist():
            metrics.top_score.observe(score)
        return [
            Labelled(ids_K[: one.k], scores_K[: one.k], answer.encode_seconds, answer.search_seconds)
            for one, ids_K, scores_K in zip(prepared, answer.top.ids_QK, answer.top.scores_QK, strict=True)
        ]

    def _count_dropped(self, reason: DropReason, rows: int) -> None:
        if reason == "expired":
            self.metrics.expired.inc(rows)
        elif reason == "cancelled":
            self.metrics.cancelled.inc(rows)
