"""A replica of one shard: a decoder in a process of its own, wherever Ray has put it, and its encoder where it encodes.

It computes one batch at a time, on a thread, so that its event loop can count those that wait: replicas are added where
rows wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.bundle.shards import ShardEntry
from service.kernels import bring
from service.threads import limit_threads

# The numerical libraries read the number of their threads when they are imported, which is not before that is set.
if TYPE_CHECKING:
    from service.decoders.parts import Parts
    from service.decoders.rows import Nearest
    from service.search.topk import TopK
    from service.sharding.shards import Floats, Outputs, RowNumbers, Traits

    # Outputs, or what the encoder makes them of.
    Asked = Mapping[str, NDArray[Any]]

# What waits, as the policy of `service.distributed.scaling` reads it.
QUEUE_ROWS = "queue_rows"
WARM_UP_K = 10

Result = TypeVar("Result")


class Replica:
    """Answers for one shard; see ``Shards``, whose methods of one shard these are.

    Args:
        path: of the bundle that names the shard, as every node sees it.
        entry: what it says of the shard.
        threads: that one search uses.

    Raises:
        BundleError: the shard is not there, damaged or another one.
    """

    def __init__(self, path: Path, entry: ShardEntry, threads: int) -> None:
        limit_threads(threads)
        bring()
        from service.bundle import layout
        from service.encoder import Encoder
        from service.sharding.deferred import is_deferred
        from service.sharding.opening import open_shard, shard_decoder
        from service.sharding.shards import Traits

        shard = open_shard(path, entry)
        self._decoder = shard_decoder(shard, threads=threads)
        outputs, self._encoder = self._decoder.required_outputs, None
        if is_deferred(outputs):
            self._encoder = Encoder.open(shard.file(layout.ENCODER), outputs, device="cpu", threads=threads)
        self._traits = replace(Traits.of(self._decoder), encode=self._encoder is not None)
        self._thread = ThreadPoolExecutor(1)
        self._waiting = 0
        self._decoder.decode({name: np.zeros((1, *shape), np.float32) for name, shape in outputs.items()}, WARM_UP_K)

    async def traits(self) -> Traits:
        """Of its decoder."""
        return self._traits

    async def decode(self, asked: Asked, k: int) -> TopK:
        """The shard's best labels."""
        rows = len(next(iter(asked.values())))
        return await self._in_turn(rows, lambda: self._decoder.decode(self._outputs(asked), k))

    async def nearest(self, embeddings_QC: Floats, count: int) -> Nearest:
        """The shard's nearest training rows, of DECLARE."""
        from service.sharding.shards import nearest_of

        return await self._in_turn(len(embeddings_QC), lambda: nearest_of(self._decoder, embeddings_QC, count))

    async def score(self, asked: Asked, rows_N: RowNumbers) -> Floats:
        """Scores of some of its labels, for one query."""
        return await self._in_turn(1, lambda: self._decoder.scorer.score(self._outputs(asked), rows_N))

    async def explain(self, asked: Asked, rows_N: RowNumbers) -> Sequence[Parts]:
        """What scores of some of its labels are made of, for one query."""
        return await self._in_turn(1, lambda: self._decoder.scorer.explain(self._outputs(asked), rows_N))

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Queries that wait here; Ray Serve asks for it."""
        return {QUEUE_ROWS: float(self._waiting)}

    def _outputs(self, asked: Asked) -> Outputs:
        return asked if self._encoder is None else self._encoder.fetched(asked)

    async def _in_turn(self, rows: int, compute: Callable[[], Result]) -> Result:
        """Compute after all that came before."""

        def begin() -> Result:
            loop.call_soon_threadsafe(self._begun, rows)
            return compute()

        loop = asyncio.get_running_loop()
        self._waiting += rows
        return await loop.run_in_executor(self._thread, begin)

    def _begun(self, rows: int) -> None:
        self._waiting -= rows
