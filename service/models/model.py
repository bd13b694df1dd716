"""One loaded model as the process that speaks HTTP knows it: what it is, and the way to the process that computes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from service.batching.channel import Connection
from service.batching.client import Client, Served
from service.bundle.manifest import Input, Manifest
from service.bundle.searching import SearchSection
from service.errors import NotReady, RequestError
from service.live.changes import LabelChange
from service.live.proposals import Decision, Reception
from service.memory import resident_bytes
from service.metrics import Metrics
from service.models.launch import Launched, Loaded
from service.models.placing import Placing
from service.models.queries import Asked, Labelled, Query, Wish
from service.schemas import FeatureVector, ModelDetail, ModelSummary

logger = logging.getLogger(__name__)


class Model:
    """A worker's manifest, the connection to it, and its series.

    Args:
        launched: the worker.
        loaded: what it has loaded.
        metrics: where the model's series live.

    Attributes:
        name: of the bundle.
        version: of the bundle.
        identity: "name:version".
        path: of the bundle's folder.
        metrics: the model's series.
    """

    def __init__(self, launched: Launched, loaded: Loaded, metrics: Metrics) -> None:
        self._launched = launched
        self._loaded = loaded
        manifest = loaded.manifest
        self.name = manifest.name
        self.version = manifest.version
        self.identity = f"{self.name}:{self.version}"
        self.path = launched.order.path
        self.metrics = metrics.model(
            self.name,
            self.version,
            manifest.method.name,
            asked=launched.order.settings.device,
            device=loaded.device,
            provider=loaded.providers[0],
        )
        self._client: Client[Asked, Labelled]
        self._proposals = Connection(launched.proposals)

    @classmethod
    async def hear(cls, launched: Launched, metrics: Metrics) -> Model:
        """Wait until a worker has loaded its bundle.

        Raises:
            BundleError: the bundle cannot be served.
        """
        model = cls(launched, await asyncio.to_thread(launched.wait_until_loaded), metrics)
        seconds = time.perf_counter() - launched.since
        model.metrics.load_seconds.set(seconds)
        logger.info(
            "loaded %s from %s in %.2f s on %s, %d at once",
            model.identity,
            model.path,
            seconds,
            model.device,
            model.runners,
        )
        return model

    async def connect(self) -> None:
        """Take the connection over; call it on the event loop, before anything is asked."""
        loop = asyncio.get_running_loop()
        limits, left = self._loaded.limits, self._launched.left
        _, self._client = await loop.create_connection(
            lambda: Client[Asked, Labelled](limits, left, self.metrics.observe), sock=self._launched.end
        )
        self.metrics.queue_rows.set_function(lambda: self._client.queued_rows)
        self.metrics.ready.set_function(lambda: float(self.healthy))
        self.metrics.resident_bytes.set_function(lambda: resident_bytes(self._launched.process.pid))

    @property
    def input(self) -> Input:
        """What a query is."""
        return self._loaded.manifest.input

    @property
    def method(self) -> str:
        """Short name of its method."""
        return self._loaded.manifest.method.name

    @property
    def label_count(self) -> int:
        """L."""
        return self._loaded.manifest.label_count

    @property
    def has_label_texts(self) -> bool:
        """Whether labels have texts beside their ids."""
        return self._loaded.manifest.has_label_texts

    @property
    def device(self) -> str:
        """Where it runs: "cpu" or "cuda"."""
        return self._loaded.device

    @property
    def runners(self) -> int:
        """Batches that it computes at once."""
        return self._loaded.limits.runners

    @property
    def healthy(self) -> bool:
        """False for good once its process has died."""
        return self._client.healthy

    def has_room(self, rows: int = 1) -> bool:
        """Whether so many queries would be taken now."""
        return self._client.has_room(rows)

    def refuse(self) -> RequestError:
        """Note that a request is refused, and say why."""
        return self._client.refuse()

    def submit(
        self, queries: Sequence[Query], wish: Wish, deadline: float = math.inf
    ) -> asyncio.Future[list[Served[Labelled]]]:
        """Queue the queries of one request; see `Client.submit`."""
        return self._client.submit([(query, *wish) for query in queries], deadline)

    async def propose(self, change: LabelChange) -> Reception:
        """Have the process make a change of labels ready; one at a time.

        Raises:
            RequestError: it cannot be made.
        """
        reception = await self._discuss(change)
        assert isinstance(reception, Reception)
        return reception

    async def decide(self, decision: Decision) -> None:
        """Have the process show the change that is ready, or drop it.

        Raises:
            NotReady: it has died.
        """
        await self._discuss(decision)

    async def _discuss(self, message: LabelChange | Decision) -> object:
        def ask() -> object:
            self._proposals.send(message)
            return self._proposals.receive_one()

        answer = await asyncio.to_thread(ask)
        if answer is None:
            raise NotReady(f"{self.identity} stopped after an internal error", retry_after_seconds=1)
        if isinstance(answer, RequestError):
            raise answer
        return answer

    async def close(self) -> None:
        """Wait for the answers to what was asked, and for the end of the process."""
        self._proposals.close()
        await self._client.close()
        await asyncio.to_thread(self._launched.end_process)
        await self._client.wait_closed()

    def summary(self, placing: Placing) -> ModelSummary:
        """What `GET /v1/models` says about the model, which has its place beside others."""
        manifest = self._loaded.manifest
        return ModelSummary(
            name=self.name,
            version=self.version,
            method=self.method,
            input=manifest.input.kind,
            label_count=self.label_count,
            device=self._loaded.device,
            ready=self.healthy,
            weight=placing.weight,
            shadow=placing.shadow,
        )

    def detail(self, placing: Placing) -> ModelDetail:
        """What `GET /v1/models/{name}` says about the model."""
        manifest = self._loaded.manifest
        index = manifest.method.index if isinstance(manifest.method, SearchSection) else None
        return ModelDetail(
            **self.summary(placing).model_dump(),
            providers=self._loaded.providers,
            precision=manifest.precision,
            groups=dict(manifest.groups),
            scores="raw" if manifest.calibration is None else "calibrated",
            propensity_weight=manifest.propensity and manifest.propensity.weight,
            method_section=manifest.method.model_dump(),
            rerank_section=manifest.rerank and manifest.rerank.model_dump(),
            index=index and index.type,
            recall=index and index.recall,
            recall_at=index and index.recall_at,
            parity=manifest.parity and manifest.parity.model_dump(),
            created_with=manifest.created_with,
            examples=_examples(manifest),
        )


def _examples(manifest: Manifest) -> list[str | FeatureVector]:
    """The golden queries, without those that the HTTP interface refuses as empty."""
    examples: list[str | FeatureVector] = []
    for golden in manifest.golden:
        if isinstance(golden.query, str):
            if golden.query.strip():
                examples.append(golden.query)
        elif golden.query.indices:
            examples.append(FeatureVector(indices=list(golden.query.indices), values=list(golden.query.values)))
    return examples
