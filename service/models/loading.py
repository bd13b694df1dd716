"""Models that are loaded while the service runs, one after the other and in the background.

    WAITING ──▶ LOADING ──▶ SERVING
                   └──────▶ FAILED     what was served before is served on

A bundle is opened, verified, warmed up and asked its golden queries in the process that will answer for it, as at the
start of the service; only then it is put among the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType

from service.bundle.shards import HEAD
from service.errors import BundleError, Conflict, RequestError, UnknownBundle, without_folders
from service.live.keeper import LabelKeeper
from service.metrics import Metrics
from service.models.launch import Launched, Order
from service.models.model import Model
from service.models.placing import Placing
from service.models.registry import Registry, check_distinct
from service.settings import Settings, variable

logger = logging.getLogger(__name__)

Launch = Callable[[Order], Launched]

# Loads that have ended and are remembered.
REMEMBERED = 100


class State(Enum):
    """Where a load is."""

    WAITING = "waiting"
    LOADING = "loading"
    SERVING = "serving"
    FAILED = "failed"


async def open_all(workers: Sequence[Launched], metrics: Metrics) -> list[Model]:
    """Wait until all workers have opened, verified and warmed up their bundles, and take the connections over.

    Raises:
        BundleError: a bundle cannot be served, or two are the same; all workers are ended then.
    """
    try:
        models = [await Model.hear(one, metrics) for one in workers]
        check_distinct(models)
    except BaseException:
        await asyncio.gather(*(asyncio.to_thread(one.abandon) for one in workers))
        raise
    for model in models:
        await model.connect()
    return models


@dataclass
class Load:
    """One bundle that is to be served.

    Attributes:
        number: by which it is asked after.
        bundle: name of the folder.
        placing: what it will do beside others; None: it replaces them.
        state: where it is.
        model: "name:version", as soon as it is known.
        reason: why it has failed.
        seconds: that it took, or None before its end.
    """

    number: int
    bundle: str
    placing: Placing | None
    state: State = State.WAITING
    model: str | None = None
    reason: str | None = None
    seconds: float | None = None


class Loader:
    """Loads bundles of one folder into a registry; everything but waiting happens on the event loop.

    Args:
        settings: of the process, among them the folder.
        registry: takes the models.
        keeper: tells them what was changed of their labels.
        metrics: counts how loads end.
        launch: starts a worker.
    """

    def __init__(
        self, settings: Settings, registry: Registry, keeper: LabelKeeper, metrics: Metrics, launch: Launch
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._keeper = keeper
        self._metrics = metrics
        self._launch = launch
        self._loads: dict[int, Load] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._number = 0
        self._turn = asyncio.Lock()

    @property
    def loads(self) -> Mapping[int, Load]:
        """Loads by number, in order, the oldest of those that have ended forgotten."""
        return MappingProxyType(self._loads)

    def begin(self, bundle: str, placing: Placing | None) -> Load:
        """Load a bundle when its turn comes.

        Args:
            bundle: name of a folder among those that may be loaded.
            placing: beside the other versions of its name; None: in their place.

        Raises:
            Conflict: no folder is set to load from.
            UnknownBundle: there is no such bundle in it.
        """
        path = self._find(bundle)
        self._number = number = self._number + 1
        load = self._loads[number] = Load(number, bundle, placing)
        task = self._tasks[number] = asyncio.get_running_loop().create_task(self._run(load, path))
        task.add_done_callback(lambda _: self._tasks.pop(number))
        for old in [old for old in self._loads if old not in self._tasks][:-REMEMBERED]:
            del self._loads[old]
        return load

    def get(self, number: int) -> Load:
        """A load.

        Raises:
            UnknownBundle: there was none of this number, or it is forgotten.
        """
        if (load := self._loads.get(number)) is None:
            raise UnknownBundle(f"there is no load {number}, or it ended long ago")
        return load

    async def wait(self, load: Load) -> None:
        """Wait until a load has ended."""
        if (task := self._tasks.get(load.number)) is not None:
            await asyncio.wait([task])

    async def close(self) -> None:
        """Give up what has not ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, bundle: str) -> Path:
        """Where a bundle lies."""
        folder = self._settings.models_dir
        if folder is None:
            raise Conflict(f"there is no folder to load from: set {variable('models_dir')}")
        there = _folders(folder)
        if bundle not in there:
            raise UnknownBundle(
                f"there is no bundle {bundle!r} to load; there are {', '.join(sorted(there)) or 'none'}"
            )
        return there[bundle]

    async def _run(self, load: Load, path: Path) -> None:
        async with self._turn:
            since = time.perf_counter()
            load.state = State.LOADING
            try:
                load.model = await self._put_in(load, path)
            except (BundleError, RequestError) as error:
                sentence = without_folders(str(error), self._settings.bundle_keys)
                # Who asked knows the bundle by its name, which may be a link's.
                self._fail(load, sentence.replace(str(path), load.bundle))
            except Exception as error:
                logger.error("loading %s failed", path, exc_info=error)
                self._fail(load, "loading failed unexpectedly; the service's log has the cause")
            else:
                load.state = State.SERVING
                self._metrics.count_swap("done")
                logger.info("%s serves", load.model)
            load.seconds = time.perf_counter() - since

    async def _put_in(self, load: Load, path: Path) -> str:
        launched = await asyncio.to_thread(self._launch, Order(path, self._settings))
        (model,) = await open_all([launched], self._metrics)
        try:
            async with self._keeper.joining(model):
                if load.placing is None:
                    self._registry.replace(model)
                else:
                    self._registry.add(model, load.placing)
        except BaseException:
            await model.close()
            raise
        return model.identity

    def _fail(self, load: Load, reason: str) -> None:
        load.state, load.reason = State.FAILED, reason
        self._metrics.count_swap("failed")
        logger.error("%s is not served: %s", load.bundle, reason)


def _folders(folder: Path) -> dict[str, Path]:
    """Bundles in a folder by name, of those in shards their heads; links are followed if they stay in it."""
    root = folder.resolve()
    entries = root.iterdir() if root.is_dir() else ()
    paths = {entry.name: entry.resolve() for entry in entries}
    return {name: _served(path) for name, path in paths.items() if path.parent == root and path.is_dir()}


def _served(path: Path) -> Path:
    head = path / HEAD
    return head if head.is_dir() else path
