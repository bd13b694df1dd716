"""Shards on other machines, asked side by side; a question that dies with a replica is put to another one."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import uvloop
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from service.decoders.parts import Parts
from service.decoders.rows import Nearest
from service.errors import ShardUnavailable
from service.search.topk import TopK
from service.sharding.partial import missing_here
from service.sharding.shards import Floats, Outputs, RowNumbers, Traits

logger = logging.getLogger(__name__)

# A shard that has not answered by then has no replica, or none that works.
ANSWER_SECONDS = 5.0
# While it is missing it is asked so often, and for so long, whether it is back.
RETRY_SECONDS, PROBE_SECONDS = 1.0, 0.5
# Between attempts, doubled each time: Ray Serve hears of a replica's death from its controller.
FIRST_PAUSE_SECONDS = 0.02

Result = TypeVar("Result")


class Place(NamedTuple):
    """Where a shard is.

    Attributes:
        deployment: of Ray Serve.
        application: that it belongs to.
    """

    deployment: str
    application: str


class RayShards:
    """Shards that are deployments of Ray Serve; may be called from several threads; see ``Shards``.

    Args:
        places: by the names of shards, in the order of their rows.

    Raises:
        ShardUnavailable: one does not answer.
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        # Not of asyncio's own kind, which takes twice as long for what Ray does on it.
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="shards", daemon=True)
        self._thread.start()
        self._links = self._await(_linked(places))
        self.traits = Traits.joined(list(self._ask_all("traits").values()))

    def decode(self, outputs: Outputs, k: int) -> Mapping[int, TopK]:
        """See ``Shards``."""
        return self._ask_all("decode", outputs, k)

    def nearest(self, embeddings_QC: Floats, count: int) -> Mapping[int, Nearest]:
        """See ``Shards``."""
        return self._ask_all("nearest", embeddings_QC, count)

    def score(self, shard: int, outputs: Outputs, rows_N: RowNumbers) -> Floats:
        """See ``Shards``."""
        scores_N: Floats = self._await(self._links[shard].ask("score", outputs, rows_N))
        return scores_N

    def explain(self, shard: int, outputs: Outputs, rows_N: RowNumbers) -> Sequence[Parts]:
        """See ``Shards``."""
        parts: Sequence[Parts] = self._await(self._links[shard].ask("explain", outputs, rows_N))
        return parts

    def close(self) -> None:
        """Ask no more."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _ask_all(self, method: str, *arguments: object) -> dict[int, Any]:
        """What each shard answers, all asked side by side.

        Raises:
            ShardUnavailable: one does not answer, and all must, or none does.
        """
        missing, answers = missing_here(), dict[int, Any]()
        failure: BaseException | None = None
        for shard, answer in enumerate(self._await(_gathered(self._links, method, arguments))):
            if not isinstance(answer, BaseException):
                answers[shard] = answer
            elif missing is not None and isinstance(answer, ShardUnavailable):
                missing.add(self._links[shard].name)
                failure = failure or answer
            else:
                raise answer
        if failure is not None and not answers:
            raise failure
        return answers

    def _await(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class Link:
    """The way to one shard; used on one event loop.

    Args:
        name: of the shard.
        handle: of its deployment.
    """

    def __init__(self, name: str, handle: DeploymentHandle[Any]) -> None:
        self.name = name
        # Kept for each method: a handle makes another one for every question otherwise. Arrays need no cloudpickle.
        self._method = cache(lambda method: handle.options(method_name=method, request_serialization="pickle"))
        # Second of the monotonic clock from which on it is asked again; None unless it is missing.
        self._asked_again: float | None = None

    async def ask(self, method: str, *arguments: object) -> Any:
        """What the shard answers.

        Args:
            method: of `service.distributed.replica.Replica`.
            arguments: of it.

        Raises:
            ShardUnavailable: no replica has answered in time, or none did a moment ago.
        """
        seconds = self._patience()
        if not seconds:
            raise self._unavailable()
        try:
            async with asyncio.timeout(seconds):
                answer = await self._persist(method, arguments)
        except RayTaskError:  # the shard's own failure: another replica would fail, too
            raise
        except (TimeoutError, RayError, RayServeException) as error:
            if self._asked_again is None:
                logger.error("%s does not answer", self.name, exc_info=error)
            self._asked_again = time.monotonic() + RETRY_SECONDS
            raise self._unavailable() from error
        if self._asked_again is not None:
            logger.info("%s answers again", self.name)
            self._asked_again = None
        return answer

    async def _persist(self, method: str, arguments: Sequence[object]) -> Any:
        """Ask until a replica has answered; what a replica is asked dies with it."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return await self._method(method).remote(*arguments)
            except RayTaskError:
                raise
            except (RayError, RayServeException) as error:
                logger.warning("%s: asking again, for a replica failed: %s", self.name, error)
            await asyncio.sleep(pause)
            pause *= 2

    def _patience(self) -> float:
        """Seconds for which an answer is waited for; 0: it need not be asked."""
        now, again = time.monotonic(), self._asked_again
        if again is None:
            return ANSWER_SECONDS
        if now < again:
            return 0.0
        self._asked_again = now + RETRY_SECONDS  # others need not look meanwhile
        return PROBE_SECONDS

    def _unavailable(self) -> ShardUnavailable:
        return ShardUnavailable(f"{self.name} does not answer", retry_after_seconds=1)


async def _linked(places: Mapping[str, Place]) -> list[Link]:
    """Handles belong to the loop on which they are made."""
    return [Link(name, serve.get_deployment_handle(*place)) for name, place in places.items()]


async def _gathered(links: Sequence[Link], method: str, arguments: Sequence[object]) -> list[Any]:
    return await asyncio.gather(*(link.ask(method, *arguments) for link in links), return_exceptions=True)
