from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from service.batching.channel import Report
from service.batching.queueing import Limits
from service.errors import DeadlineExceeded, Draining, EngineFailed, InvalidRequest, NotReady, QueueFull
from tests.service.blocking import LIMITS, PLUG, Computation, answer, batching, plugged, until_sent


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def results(served: Sequence[Any]) -> list[int]:
    return [one.result for one in served]


def test_a_request_gets_its_rows_in_order_with_their_timings() -> None:
    async def scenario() -> None:
        async with batching(Computation()) as client:
            served = await client.submit([3, 1, 2])
            assert results(served) == [answer(3), answer(1), answer(2)]
            assert all(one.queue_seconds >= 0 and one.prepare_seconds >= 0 for one in served)

    run(scenario)


def test_rows_keep_their_order_and_a_big_request_is_split() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as client:
            futures = [client.submit([1]), client.submit([2, 3, 4, 5, 6]), client.submit([7])]
            computation.release.set()
            answers = [results(await future) for future in futures]
        assert answers == [[answer(1)], [answer(i) for i in (2, 3, 4, 5, 6)], [answer(7)]]
        assert [item for batch in computation.batches[1:] for item in batch] == [1, 2, 3, 4, 5, 6, 7]
        assert all(len(batch) <= LIMITS.batch_rows for batch in computation.batches)

    run(scenario)


def test_no_more_than_two_batches_are_made_ready_at_once() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as client:
            futures = [client.submit([item]) for item in range(12)]
            await asyncio.sleep(0)
            computation.release.set()
            await asyncio.gather(*futures)
        assert max(len(call) for call in computation.prepared) == 2 * LIMITS.batch_rows

    run(scenario)


def test_a_batch_is_bounded_by_its_padded_tokens_but_a_longer_row_runs_alone() -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=8, batch_tokens=20, queue_rows=16)
        async with plugged(computation, limits, length=lambda item: max(item, 1)) as client:
            future = client.submit([5, 5, 5, 5, 5, 50, 2, 9])
            computation.release.set()
            await future
        assert all(len(batch) == 1 or len(batch) * max(batch) <= 20 for batch in computation.batches)
        assert [50] in computation.batches

    run(scenario)


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    async def scenario() -> None:
        async with plugged(computation := Computation()) as client:
            accepted = client.submit(list(range(15)))
            with pytest.raises(
                QueueFull, match=r"15 of the queue's 16 places are taken, but the request needs 2"
            ) as info:
                client.submit([1, 2])
            assert (info.value.retry_after_seconds or 0) >= 1
            last = client.submit([1])
            assert not client.has_room()
            assert client.queued_rows == LIMITS.queue_rows
            computation.release.set()
            await asyncio.gather(accepted, last)
            assert client.has_room()

    run(scenario)


@pytest.mark.parametrize(("overload_seconds", "has_room"), [(math.inf, True), (0.0, False)])
def test_under_overload_only_what_is_served_soon_may_wait(overload_seconds: float, has_room: bool) -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=1, batch_tokens=100, queue_rows=8, overload_seconds=overload_seconds)
        async with plugged(computation, limits) as client:
            client._admission.learn(1000, 1.0)
            futures = [client.submit([item]) for item in range(8)]
            with pytest.raises(QueueFull):
                client.submit([9])
            client._sent_rows -= 7  # as if all but one had been taken
            assert client.has_room(1) is has_room
            client._admission._last_refusal -= 2.0  # as if two seconds had passed without a refusal
            assert client.has_room(1)
            computation.release.set()
            await asyncio.gather(*futures)

    run(scenario)


def test_a_request_larger_than_the_queue_is_told_to_come_in_parts() -> None:
    async def scenario() -> None:
        async with batching(Computation()) as client:
            with pytest.raises(InvalidRequest, match="has 17 queries, but at most 16 can wait"):
                client.submit(list(range(17)))
            with pytest.raises(ValueError, match="at least one item"):
                client.submit([])

    run(scenario)


def test_a_cancelled_request_costs_no_compute_and_frees_its_places() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as client:
            kept, gone = client.submit([1]), client.submit(list(range(10, 25)))
            await until_sent()
            gone.cancel()
            await until_sent()
            computation.release.set()
            assert results(await kept) == [answer(1)]
            assert not client.queued_rows
        assert not any(computation.ran(item) for item in range(10, 25))
        assert computation.dropped == [("cancelled", 15)]

    run(scenario)


def test_a_late_request_is_told_so_and_costs_no_compute() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as client:
            late = client.submit([1, 2], deadline=time.monotonic())
            with pytest.raises(DeadlineExceeded, match="timeout_ms"):
                await late
            computation.release.set()
        assert not computation.ran(1)
        assert sum(rows for reason, rows in computation.dropped if reason == "expired") == 2

    run(scenario)


def test_late_rows_are_dropped_by_the_threads_when_the_event_loop_is_busy() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with batching(computation) as client:
            late = client.submit([1], deadline=time.monotonic())
            client._flush()
            while client.queued_rows:  # blocks the loop, so its timer cannot fire
                continue
            with pytest.raises(DeadlineExceeded):
                await late
        assert not computation.batches
        assert computation.dropped == [("expired", 1)]

    run(scenario)


def test_a_request_in_time_is_answered_before_its_deadline() -> None:
    async def scenario() -> None:
        async with batching(computation := Computation()) as client:
            assert results(await client.submit([4], deadline=time.monotonic() + 3600)) == [answer(4)]
            assert not computation.dropped

    run(scenario)


def test_a_poison_row_fails_its_own_request_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        computation = Computation()
        computation.fails_always = {13}
        async with plugged(computation) as client:
            good, bad = client.submit([1]), client.submit([2, 13])
            computation.release.set()
            assert results(await good) == [answer(1)]
            with pytest.raises(EngineFailed) as info:
                await bad
            assert "poison" not in str(info.value)
        assert computation.batches.count([13]) == 1
        assert client.healthy

    run(scenario)
    assert any(record.exc_info and "poison" in str(record.exc_info[1]) for record in caplog.records)


def test_a_batch_that_fails_only_in_company_is_answered_row_by_row() -> None:
    async def scenario() -> None:
        computation = Computation()
        computation.fails_in_company = {1, 2, 3}
        async with plugged(computation) as client:
            future = client.submit([1, 2, 3])
            computation.release.set()
            assert results(await future) == [answer(1), answer(2), answer(3)]

    run(scenario)


def test_a_query_that_cannot_be_prepared_is_the_clients_fault(caplog: pytest.LogCaptureFixture) -> None:
    def prepare(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise InvalidRequest("13 is no query")
        return list(items)

    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation, prepare=prepare) as client:
            good, bad = client.submit([1]), client.submit([13])
            computation.release.set()
            assert results(await good) == [answer(1)]
            with pytest.raises(InvalidRequest, match="13 is no query"):
                await bad

    run(scenario)
    assert not caplog.records


def test_a_batch_with_a_missing_result_fails_rather_than_shifting_answers() -> None:
    async def scenario() -> None:
        async with batching(Computation(), run=lambda items: [answer(item) for item in items[1:]]) as client:
            with pytest.raises(EngineFailed):
                await client.submit([1])

    run(scenario)


@pytest.mark.parametrize("victim", ["prepare", "run"])
def test_when_a_thread_dies_everybody_hears_of_it(victim: str) -> None:
    def die(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise SystemExit
        return [answer(item) for item in items] if victim == "run" else list(items)

    async def scenario() -> None:
        calls: dict[str, Any] = {victim: die}
        async with batching(Computation(), **calls) as client:
            outcomes = await asyncio.gather(*(client.submit([item]) for item in (1, 13, 3)), return_exceptions=True)
            assert isinstance(outcomes[1], EngineFailed)
            assert all(isinstance(one, EngineFailed) or results(one) for one in outcomes)  # type: ignore[arg-type]
            assert not client.healthy
            with pytest.raises(NotReady, match="restart"):
                client.submit([1])

    run(scenario)


def test_closing_answers_what_is_queued_and_refuses_the_rest() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as client:
            queued = client.submit(list(range(10)))
            closing = asyncio.create_task(client.close())
            await asyncio.sleep(0)
            with pytest.raises(Draining):
                client.submit([1])
            assert not closing.done()
            computation.release.set()
            await closing
            assert results(queued.result()) == [answer(item) for item in range(10)]
        assert client.healthy

    run(scenario)


def test_a_free_runner_waits_for_company_as_long_as_it_is_told_to() -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=2, batch_tokens=100, queue_rows=4, wait_seconds=1000)
        async with batching(computation, limits) as client:
            first = client.submit([1])
            client._flush()
            second = client.submit([2])
            await asyncio.gather(first, second)
        assert computation.batches == [[1, 2]]

    run(scenario)


def test_a_batch_that_does_not_fill_leaves_when_its_wait_is_over() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with batching(
            computation, Limits(batch_rows=9, batch_tokens=100, queue_rows=9, wait_seconds=0.001)
        ) as client:
            assert results(await client.submit([1])) == [answer(1)]

    run(scenario)


def test_the_answers_of_a_batch_come_in_one_report() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as client:
            futures = [client.submit([item]) for item in range(4)]
            take_in, closed = client._take_in, []

            def counting(report: Report) -> None:
                closed.append(len(report.closed))
                take_in(report)

            client._take_in = counting  # type: ignore[method-assign]
            computation.release.set()
            await asyncio.gather(*futures)
        assert closed == [1, 4]

    run(scenario)


def test_several_runners_compute_at_once() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with batching(computation, Limits(batch_rows=4, batch_tokens=100, queue_rows=16, runners=2)) as client:
            plug = client.submit([PLUG])
            await asyncio.to_thread(computation.blocked.acquire)
            assert results(await client.submit([1, 2, 3])) == [answer(item) for item in (1, 2, 3)]
            assert not plug.done()
            computation.release.set()
            await plug

    run(scenario)


def test_runners_that_are_free_share_what_is_there() -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=4, batch_tokens=100, queue_rows=16, runners=2)
        async with batching(computation, limits) as client:
            futures = [client.submit([PLUG]), client.submit([PLUG])]
            for _ in futures:
                await asyncio.to_thread(computation.blocked.acquire)
            computation.release.set()
            await asyncio.gather(*futures)
        assert computation.batches == [[PLUG], [PLUG]]

    run(scenario)


@pytest.mark.parametrize("runners", [1, 3])
def test_a_client_that_closes_waits_for_what_a_runner_is_preparing(runners: int) -> None:
    async def scenario() -> None:
        computation, may_prepare, is_preparing = Computation(), threading.Event(), threading.Event()

        def prepare(items: Sequence[int]) -> list[int]:
            is_preparing.set()
            may_prepare.wait()
            return list(items)

        limits = Limits(batch_rows=4, batch_tokens=100, queue_rows=16, runners=runners)
        async with batching(computation, limits, prepare=prepare) as client:
            future = client.submit([1])
            await asyncio.to_thread(is_preparing.wait)
            closing = asyncio.ensure_future(client.close())
            await asyncio.sleep(0)
            may_prepare.set()
            await closing
            assert results(await future) == [answer(1)]

    run(scenario)


def test_a_thread_beyond_the_runners_makes_a_batch_ready_and_computes_none_beside_them() -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=4, batch_tokens=100, queue_rows=16, ahead=1)
        async with plugged(computation, limits) as client:
            future = client.submit([1, 2])
            while computation.prepared != [[PLUG], [1, 2]]:
                await asyncio.sleep(0)
            while client.queued_rows:  # it has taken its batch
                await asyncio.sleep(0)
            assert computation.batches == [[PLUG]]
            computation.release.set()
            assert results(await future) == [answer(1), answer(2)]

    run(scenario)


def test_a_runner_leaves_the_others_their_share() -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=9, batch_tokens=100, queue_rows=16, runners=3)
        async with batching(computation, limits) as client:
            plugs = [client.submit([PLUG])]
            await asyncio.to_thread(computation.blocked.acquire)
            plugs.append(client.submit([PLUG]))
            await asyncio.to_thread(computation.blocked.acquire)
            assert results(await client.submit(list(range(9)))) == [answer(item) for item in range(9)]
            computation.release.set()
            await asyncio.gather(*plugs)
        assert [len(batch) for batch in computation.batches[2:]] == [3, 2, 2, 1, 1]

    run(scenario)
