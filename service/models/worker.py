"""The process that computes for one model: it opens a bundle, then answers a client until their connection ends.

One process for HTTP and one for each model, because Python runs one thread at a time: an event loop beside an engine in
one process makes each wait for the other, by milliseconds when both are busy. And a model that crashes or is let go
takes nothing with it and leaves nothing behind.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from service.batching.batcher import Batcher
from service.batching.channel import Connection, Notes, SharedCount
from service.batching.queueing import Limits
from service.bundle import Bundle, open_bundle
from service.engine import Engine
from service.errors import BundleError
from service.live.proposals import answer_proposals
from service.logs import configure_logging
from service.models.cost import Cost, measure, useful_runners
from service.models.labelling import Labeller, Prepared
from service.models.launch import Loaded, Order
from service.models.queries import Asked, Labelled
from service.settings import LogFormat, Settings

if TYPE_CHECKING:
    from service.sharding.shards import Shards

# A CPU gains nothing from larger batches once its caches are full; everybody in the batch waits for all of it.
DEFAULT_BATCH_ROWS = {"cpu": 32, "cuda": 128}
# A GPU computes one batch after the other; meanwhile the processor makes the next one ready.
AHEAD = {"cpu": 0, "cuda": 1}
# Under overload as much work may wait as this many lone queries take, so that an accepted one stays within ten times
# its idle latency: it waits for the queue, for the batch before it and for its own.
OVERLOAD_QUERIES = 3


@contextmanager
def opened(order: Order) -> Iterator[Engine]:
    """An engine for a bundle, warmed up, that has answered its golden queries; shards elsewhere end with the block.

    Raises:
        BundleError: the bundle cannot be trusted or used.
    """
    settings = order.settings
    bundle = open_bundle(order.path, settings.bundle_keys)
    with _shards(bundle, order) as shards:
        engine = Engine.open(bundle, device=settings.device, threads=settings.batch_threads, shards=shards)
        engine.warm_up()
        engine.check_golden()
        yield engine


def _shards(bundle: Bundle, order: Order) -> AbstractContextManager[Shards | None]:
    """The bundle's shards on other machines, where it has some and they shall be there."""
    if order.settings.ray is None or not bundle.manifest.shards:
        return nullcontext()
    from service.distributed.environment import prepare

    prepare()
    from service.distributed.opening import deployed, found  # the extra may not be installed

    if order.application is None:
        return deployed(bundle, order.settings)
    return found(bundle, order.settings, order.application)


class Worker:
    """An engine, its batcher and the connection to their client.

    Args:
        connection: on which an `Order` comes first.
        proposals: on which changes of labels come.
        left: see `Batcher`.

    Attributes:
        engine: of the bundle.
    """

    def __init__(self, connection: Connection, proposals: Connection, left: SharedCount) -> None:
        self._connection = connection
        self._proposals = proposals
        self._left = left
        self.engine: Engine

    def work(self) -> bool:
        """Load the bundle and answer until the connection ends.

        The first message back is `Loaded`, or the `BundleError` that stands against it.

        Returns:
            Whether nothing went wrong.
        """
        order: Order | None = self._connection.receive_one()
        if order is None:
            return True
        try:
            with opened(order) as self.engine:
                return self._work(self._ready(order.settings))
        except BundleError as error:
            self._connection.send(error)
            return False

    def _work(self, batcher: Batcher[Asked, Prepared, Labelled]) -> bool:
        """Answer queries on some threads and proposals on another, until the connection for queries ends."""
        changing = threading.Thread(target=answer_proposals, args=(self._proposals, self.engine.live), daemon=True)
        changing.start()
        try:
            return batcher.work()
        finally:
            self._proposals.close()
            changing.join()

    def _ready(self, settings: Settings) -> Batcher[Asked, Prepared, Labelled]:
        engine = self.engine
        limits = _limits(settings, engine.device, measure(engine))
        notes = Notes()
        labeller = Labeller(engine, notes)
        # What is alive now stays alive. Without this every full collection walks it all, and all clients wait.
        gc.collect()
        gc.freeze()
        self._connection.send(Loaded(engine.manifest, engine.device, engine.providers, limits))
        return Batcher(
            prepare=labeller.prepare,
            run=labeller.run,
            length=lambda prepared: prepared.tokens,
            limits=limits,
            connection=self._connection,
            left=self._left,
            notes=notes,
            name=engine.manifest.name,
        )


def _limits(settings: Settings, device: str, cost: Cost) -> Limits:
    return Limits(
        batch_rows=settings.max_batch_rows or DEFAULT_BATCH_ROWS[device],
        batch_tokens=settings.max_batch_tokens,
        queue_rows=settings.queue_rows,
        wait_seconds=settings.max_wait_ms / 1000,
        runners=_runners(settings, device, cost),
        ahead=AHEAD[device],
        padding_tokens=cost.batch_in_tokens,
        overload_seconds=OVERLOAD_QUERIES * cost.lone_seconds,
    )


def _runners(settings: Settings, device: str, cost: Cost) -> int:
    """Batches that the model computes at once."""
    if settings.runners is not None:
        return settings.runners
    return 1 if device == "cuda" else useful_runners(settings.threads, cost.query_seconds)


def main(end: int, proposals: int, left: int, log_format: LogFormat) -> None:
    """Be the process.

    Args:
        end: descriptor of its end of the connection.
        proposals: the same of the connection on which labels are changed.
        left: descriptor of the shared count's file.
        log_format: see `Settings`.
    """
    # Its life hangs on the connection: a signal to all processes of a terminal or a container is the client's to obey.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    configure_logging(log_format)
    asked, proposed = Connection(socket.socket(fileno=end)), Connection(socket.socket(fileno=proposals))
    worker = Worker(asked, proposed, SharedCount(left))
    code = 0 if worker.work() else 1
    # Not sys.exit: threads of the numerical libraries must not hold up, or crash, the way out.
    logging.shutdown()
    os._exit(code)
