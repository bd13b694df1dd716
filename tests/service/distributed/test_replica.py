"""A replica counts the rows that wait for it, and answers what its decoder does."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np

from model_export.cli import main as export
from service.bags import Bag
from service.bundle import Bundle, layout, open_bundle
from service.distributed.replica import QUEUE_ROWS, Replica
from service.encoder import Encoder, inputs_of
from service.sharding.deferred import MOST_SENT_BYTES
from service.sharding.opening import open_shard, shard_decoder
from tests.bundles import Spec, write_bundle


def head_of(folder: Path, spec: Spec) -> Bundle:
    """The head of a bundle in two shards."""
    write_bundle(folder / "whole", spec)
    assert export(["shard", str(folder / "whole"), "--shards", "2", "--out", str(folder / "cut")]) == 0
    return open_bundle(folder / "cut" / "head")


def test_rows_that_wait_are_counted_until_their_turn(tmp_path: Path) -> None:
    head = head_of(tmp_path, Spec())
    replica = Replica(head.path, head.manifest.shards[0], 1)
    decoder = shard_decoder(open_shard(head.path, head.manifest.shards[0]), threads=1)
    shapes = decoder.required_outputs
    outputs = {name: np.ones((3, *shape), np.float32) for name, shape in shapes.items()}
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        release.wait()

    async def ask() -> None:
        first = asyncio.create_task(replica._in_turn(1, hold))
        await asyncio.to_thread(held.wait)
        second = asyncio.create_task(replica.decode(outputs, 5))
        while replica.record_autoscaling_stats()[QUEUE_ROWS] != 3:
            await asyncio.sleep(0)
        release.set()
        await first
        top = await second
        expected = decoder.decode(outputs, 5)
        np.testing.assert_array_equal(top.ids_QK, expected.ids_QK)
        np.testing.assert_array_equal(top.scores_QK, expected.scores_QK)
        assert replica.record_autoscaling_stats() == {QUEUE_ROWS: 0}
        assert await replica.traits() == replica._traits

    asyncio.run(ask())


def test_a_replica_encodes_where_outputs_are_too_large_to_send(tmp_path: Path) -> None:
    """And scores are those of the outputs that the head would have sent, to the bit."""
    spec = Spec(buckets=1 + MOST_SENT_BYTES // (4 * Spec.repetitions))
    head = head_of(tmp_path, spec)
    replica = Replica(head.path, head.manifest.shards[1], 1)
    decoder = shard_decoder(open_shard(head.path, head.manifest.shards[1]), threads=1)
    encoder = Encoder.open(head.file(layout.ENCODER), decoder.required_outputs, device="cpu", threads=1)
    bags = [Bag(np.arange(1, last), np.ones(last - 1, np.float32)) for last in (2, 9)]
    asked, outputs = inputs_of(bags)[0], encoder.run(bags).outputs
    rows_N = np.arange(5)

    async def ask() -> None:
        assert (await replica.traits()).encode
        for found, expected in (
            (await replica.decode(asked, 7), decoder.decode(outputs, 7)),
            (await replica.decode(inputs_of(bags[:1])[0], 7), decoder.decode(encoder.run(bags[:1]).outputs, 7)),
        ):
            np.testing.assert_array_equal(found.ids_QK, expected.ids_QK)
            np.testing.assert_array_equal(found.scores_QK, expected.scores_QK)
        of_one = encoder.run(bags[:1]).outputs
        scores_N = await replica.score(inputs_of(bags[:1])[0], rows_N)
        np.testing.assert_array_equal(scores_N, decoder.scorer.score(of_one, rows_N))

    asyncio.run(ask())
