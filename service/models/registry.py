"""The models that are loaded, by name and version."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from service.errors import BundleError, InvalidRequest, RequestError, UnknownModel
from service.metrics import Metrics
from service.models.launch import Launched
from service.models.model import Model

logger = logging.getLogger(__name__)


class Registry:
    """All models of the service. Loading happens once, on a thread of its own; everything else on the event loop.

    Args:
        metrics: where the models' series live.
        workers: that load them.
    """

    def __init__(self, metrics: Metrics, workers: Sequence[Launched]) -> None:
        self._metrics = metrics
        self._workers = workers
        self._models: list[Model] = []
        self._only: Model | None = None

    @property
    def models(self) -> Sequence[Model]:
        """The loaded models in the order in which they were given."""
        return self._models

    def load(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until every worker has opened, verified and warmed up its bundle, and take the connections over.

        Blocks; nothing can be asked before all of them are there.

        Args:
            loop: the event loop of the waiters.

        Raises:
            BundleError: a bundle cannot be served, or two are the same.
        """
        try:
            models = self._hear()
        except BundleError:
            for one in self._workers:
                one.abandon()
            raise
        for model in models:
            asyncio.run_coroutine_threadsafe(model.connect(), loop).result()
        self._models = models
        self._only = models[0] if len(models) == 1 else None

    def _hear(self) -> list[Model]:
        models: list[Model] = []
        paths: dict[tuple[str, str], Path] = {}
        for one in self._workers:
            loaded, path = one.wait_until_loaded(), one.order.path
            model = Model(one, loaded, self._metrics)
            identity = (model.name, model.version)
            if identity in paths:
                raise BundleError(f"{path}: {':'.join(identity)} is given twice, first as {paths[identity]}")
            paths[identity] = path
            seconds = time.perf_counter() - one.since
            model.metrics.load_seconds.set(seconds)
            models.append(model)
            logger.info(
                "loaded %s:%s from %s in %.2f s on %s, %d at once",
                *identity,
                path,
                seconds,
                model.device,
                model.runners,
            )
        return models

    def get(self, wanted: str | None) -> Model:
        """The model that a request names.

        Args:
            wanted: "name", which means the version given last, "name:version", or None for the only model.

        Raises:
            InvalidRequest: None, while several models are loaded.
            UnknownModel: no such model is loaded.
        """
        if wanted is None:
            if self._only is None:
                raise InvalidRequest(f"model: expected one of {self._names()}, because several are loaded; found none")
            return self._only
        for model in reversed(self._models):
            if wanted in (model.name, f"{model.name}:{model.version}"):
                return model
        raise UnknownModel(f"no model {wanted!r} is loaded; loaded are {self._names()}")

    def has_room(self) -> bool:
        """Whether a model would take a query now."""
        if self._only is not None:  # asked for every request, and any() takes longer than the answer
            return self._only.has_room()
        return any(model.has_room() for model in self._models)

    def refusal(self) -> RequestError | None:
        """Why no model takes even one query now, or None when one would."""
        return None if self.has_room() else [model.refuse() for model in self._models][-1]

    def unhealthy(self) -> str | None:
        """Which models have stopped for good, in words, or None."""
        names = [f"{model.name}:{model.version}" for model in self._models if not model.healthy]
        return f"{', '.join(names)} stopped after an internal error; the process needs a restart" if names else None

    async def close(self) -> None:
        """Answer what is queued and end all threads."""
        await asyncio.gather(*(model.close() for model in self._models))

    def _names(self) -> str:
        return ", ".join(f"{model.name}:{model.version}" for model in self._models)
