"""A replica counts the rows that wait for it, and answers what its decoder does."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np

from model_export.cli import main as export
from service.bundle import open_bundle
from service.distributed.replica import QUEUE_ROWS, Replica
from service.sharding.opening import shard_decoder
from tests.bundles import Spec, write_bundle


def test_rows_that_wait_are_counted_until_their_turn(tmp_path: Path) -> None:
    write_bundle(tmp_path / "whole", Spec())
    assert export(["shard", str(tmp_path / "whole"), "--shards", "2", "--out", str(tmp_path / "cut")]) == 0
    head = open_bundle(tmp_path / "cut" / "head")
    replica = Replica(head.path, head.manifest.shards[0], 1)
    decoder = shard_decoder(head.path, head.manifest.shards[0], threads=1)
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
