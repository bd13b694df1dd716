from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from service.errors import DeadlineExceeded, Draining, EngineFailed, InvalidRequest, NotReady, QueueFull
from service.queueing import Limits
from tests.service.blocking import LIMITS, PLUG, Computation, answer, make_batcher, plugged


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(scenario())


def results(served: Sequence[Any]) -> list[int]:
    return [one.result for one in served]


def test_a_request_gets_its_rows_in_order_with_their_timings() -> None:
    async def scenario() -> None:
        batcher = make_batcher(Computation())
        served = await batcher.submit([3, 1, 2])
        assert results(served) == [answer(3), answer(1), answer(2)]
        assert all(one.queue_seconds >= 0 and one.prepare_seconds >= 0 for one in served)
        await batcher.close(drain=True)

    run(scenario)


def test_rows_keep_their_order_and_a_big_request_is_split() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            futures = [batcher.submit([1]), batcher.submit([2, 3, 4, 5, 6]), batcher.submit([7])]
            computation.release.set()
            answers = [results(await future) for future in futures]
        assert answers == [[answer(1)], [answer(i) for i in (2, 3, 4, 5, 6)], [answer(7)]]
        assert [item for batch in computation.batches[1:] for item in batch] == [1, 2, 3, 4, 5, 6, 7]
        assert all(len(batch) <= LIMITS.batch_rows for batch in computation.batches)

    run(scenario)


def test_the_preparer_is_at_most_one_batch_ahead() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            futures = [batcher.submit([item]) for item in range(12)]
            batcher.submit([99]).cancel()  # the last thing that happens before the runner is released
            await asyncio.sleep(0)
            assert sum(len(call) for call in computation.prepared) <= 1 + LIMITS.batch_rows
            computation.release.set()
            await asyncio.gather(*futures)

    run(scenario)


def test_a_batch_is_bounded_by_its_padded_tokens_but_a_longer_row_runs_alone() -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=8, batch_tokens=20, queue_rows=16)
        async with plugged(computation, limits, length=lambda item: max(item, 1)) as batcher:
            future = batcher.submit([5, 5, 5, 5, 5, 50, 2, 9])
            computation.release.set()
            await future
        assert all(len(batch) == 1 or len(batch) * max(batch) <= 20 for batch in computation.batches)
        assert [50] in computation.batches

    run(scenario)


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    async def scenario() -> None:
        async with plugged(computation := Computation()) as batcher:
            accepted = batcher.submit(list(range(15)))
            with pytest.raises(
                QueueFull, match=r"15 of the queue's 16 places are taken, but the request needs 2"
            ) as info:
                batcher.submit([1, 2])
            assert (info.value.retry_after_seconds or 0) >= 1
            last = batcher.submit([1])
            assert not batcher.has_room()
            assert batcher.queued_rows == LIMITS.queue_rows
            computation.release.set()
            await asyncio.gather(accepted, last)
            assert batcher.has_room()

    run(scenario)


@pytest.mark.parametrize(("overload_seconds", "has_room"), [(math.inf, True), (0.0, False)])
def test_under_overload_only_what_is_served_soon_may_wait(overload_seconds: float, has_room: bool) -> None:
    async def scenario() -> None:
        computation = Computation()
        limits = Limits(batch_rows=1, batch_tokens=100, queue_rows=8, overload_seconds=overload_seconds)
        async with plugged(computation, limits) as batcher:
            batcher._admission.learn(1000, 1.0)
            kept, gone = batcher.submit([1]), batcher.submit([2] * 7)
            with pytest.raises(QueueFull):
                batcher.submit([3])
            gone.cancel()
            await asyncio.sleep(0)
            assert batcher.queued_rows - batcher._queue._preparing <= 1
            assert batcher.has_room(1) is has_room
            batcher._admission._last_refusal -= 2.0  # as if two seconds had passed without a refusal
            assert batcher.has_room(1)
            computation.release.set()
            await kept

    run(scenario)


def test_a_request_larger_than_the_queue_is_told_to_come_in_parts() -> None:
    async def scenario() -> None:
        batcher = make_batcher(Computation())
        with pytest.raises(InvalidRequest, match="has 17 queries, but at most 16 can wait"):
            batcher.submit(list(range(17)))
        with pytest.raises(ValueError, match="at least one item"):
            batcher.submit([])
        await batcher.close(drain=True)

    run(scenario)


def test_a_cancelled_request_costs_no_compute_and_frees_its_places() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            kept, gone = batcher.submit([1]), batcher.submit(list(range(10, 25)))
            gone.cancel()
            await asyncio.sleep(0)  # lets the future's callback run
            assert batcher.queued_rows <= 1 + LIMITS.batch_rows
            computation.release.set()
            assert results(await kept) == [answer(1)]
        assert not any(computation.ran(item) for item in range(10, 25))
        assert sum(rows for reason, rows in computation.dropped if reason == "cancelled") == 15

    run(scenario)


def test_a_late_request_is_told_so_and_costs_no_compute() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            late = batcher.submit([1, 2], deadline=time.monotonic())
            with pytest.raises(DeadlineExceeded, match="timeout_ms"):
                await late
            computation.release.set()
        assert not computation.ran(1)
        assert sum(rows for reason, rows in computation.dropped if reason == "expired") == 2

    run(scenario)


def test_late_rows_are_dropped_by_the_threads_when_the_event_loop_is_busy() -> None:
    async def scenario() -> None:
        computation = Computation()
        batcher = make_batcher(computation)
        late = batcher.submit([1], deadline=time.monotonic())
        await asyncio.sleep(0)  # the preparer is woken; the timer comes after us in the loop's queue
        computation.has_dropped.wait()  # blocks the loop, so its timer cannot have fired
        assert computation.dropped == [("expired", 1)]
        with pytest.raises(DeadlineExceeded):
            await late
        assert not computation.batches
        await batcher.close(drain=True)

    run(scenario)


def test_a_request_in_time_is_answered_before_its_deadline() -> None:
    async def scenario() -> None:
        batcher = make_batcher(computation := Computation())
        assert results(await batcher.submit([4], deadline=time.monotonic() + 3600)) == [answer(4)]
        assert not computation.dropped
        await batcher.close(drain=True)

    run(scenario)


def test_a_poison_row_fails_its_own_request_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        computation = Computation()
        computation.fails_always = {13}
        async with plugged(computation) as batcher:
            good, bad = batcher.submit([1]), batcher.submit([2, 13])
            computation.release.set()
            assert results(await good) == [answer(1)]
            with pytest.raises(EngineFailed) as info:
                await bad
            assert "poison" not in str(info.value)
        assert computation.batches.count([13]) == 1
        assert batcher.healthy

    run(scenario)
    assert any(record.exc_info and "poison" in str(record.exc_info[1]) for record in caplog.records)


def test_a_batch_that_fails_only_in_company_is_answered_row_by_row() -> None:
    async def scenario() -> None:
        computation = Computation()
        computation.fails_in_company = {1, 2, 3}
        async with plugged(computation) as batcher:
            future = batcher.submit([1, 2, 3])
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
        async with plugged(computation, prepare=prepare) as batcher:
            good, bad = batcher.submit([1]), batcher.submit([13])
            computation.release.set()
            assert results(await good) == [answer(1)]
            with pytest.raises(InvalidRequest, match="13 is no query"):
                await bad

    run(scenario)
    assert not caplog.records


def test_a_batch_with_a_missing_result_fails_rather_than_shifting_answers() -> None:
    async def scenario() -> None:
        batcher = make_batcher(Computation(), run=lambda items: [answer(item) for item in items[1:]])
        with pytest.raises(EngineFailed):
            await batcher.submit([1])
        await batcher.close(drain=True)

    run(scenario)


@pytest.mark.parametrize("victim", ["prepare", "run"])
def test_when_a_thread_dies_everybody_hears_of_it(victim: str) -> None:
    def die(items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise SystemExit
        return [answer(item) for item in items] if victim == "run" else list(items)

    async def scenario() -> None:
        computation = Computation()
        calls: dict[str, Any] = {victim: die}
        batcher = make_batcher(computation, **calls)
        outcomes = await asyncio.gather(*(batcher.submit([item]) for item in (1, 13, 3)), return_exceptions=True)
        assert isinstance(outcomes[1], EngineFailed)
        assert all(isinstance(one, EngineFailed) or results(one) for one in outcomes)  # type: ignore[arg-type]
        assert not batcher.healthy
        with pytest.raises(NotReady, match="restart"):
            batcher.submit([1])
        await batcher.close(drain=True)

    run(scenario)


def test_closing_with_drain_answers_what_is_queued_and_refuses_the_rest() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            queued = batcher.submit(list(range(10)))
            closing = asyncio.create_task(batcher.close(drain=True))
            await asyncio.sleep(0)
            with pytest.raises(Draining):
                batcher.submit([1])
            computation.release.set()
            await closing
            assert queued.done()
            assert results(queued.result()) == [answer(item) for item in range(10)]

    run(scenario)


def test_closing_without_drain_fails_what_has_no_answer() -> None:
    async def scenario() -> None:
        computation = Computation()
        batcher = make_batcher(computation)
        running = batcher.submit([PLUG])
        await asyncio.to_thread(computation.blocked.acquire)
        queued = batcher.submit([1])
        closing = asyncio.create_task(batcher.close(drain=False))
        await asyncio.sleep(0)
        computation.release.set()
        await closing
        for future in (running, queued):
            assert isinstance(future.exception(), Draining)
        assert not computation.ran(1)

    run(scenario)


def test_a_free_runner_waits_for_company_as_long_as_it_is_told_to() -> None:
    async def scenario() -> None:
        computation = Computation()
        batcher = make_batcher(computation, Limits(batch_rows=2, batch_tokens=100, queue_rows=4, wait_seconds=1000))
        first, second = batcher.submit([1]), batcher.submit([2])
        await asyncio.gather(first, second)
        assert computation.batches == [[1, 2]]
        lonely = batcher.submit([3])
        await batcher.close(drain=True)
        assert results(lonely.result()) == [answer(3)]

    run(scenario)


def test_a_batch_that_does_not_fill_leaves_when_its_wait_is_over() -> None:
    async def scenario() -> None:
        computation = Computation()
        batcher = make_batcher(computation, Limits(batch_rows=9, batch_tokens=100, queue_rows=9, wait_seconds=0.001))
        assert results(await batcher.submit([1])) == [answer(1)]
        await batcher.close(drain=True)

    run(scenario)


def test_the_waiters_of_a_batch_are_woken_in_one_go() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            futures = [batcher.submit([item]) for item in range(4)]
            wake = batcher._settle
            calls: list[int] = []

            def counting(tickets: Sequence[Any]) -> None:
                calls.append(len(tickets))
                wake(tickets)

            batcher._settle = counting  # type: ignore[method-assign]
            computation.release.set()
            await asyncio.gather(*futures)
            batches = len(computation.batches)
        assert sum(calls) == 5
        assert len(calls) == batches

    run(scenario)


def test_several_runners_compute_at_once() -> None:
    async def scenario() -> None:
        computation = Computation()
        batcher = make_batcher(computation, Limits(batch_rows=4, batch_tokens=100, queue_rows=16, runners=2))
        plug = batcher.submit([PLUG])
        await asyncio.to_thread(computation.blocked.acquire)
        assert results(await batcher.submit([1, 2, 3])) == [answer(item) for item in (1, 2, 3)]
        assert not plug.done()
        computation.release.set()
        await plug
        await batcher.close(drain=True)

    run(scenario)


def test_a_free_runner_prepares_for_itself_and_the_preparer_only_works_ahead() -> None:
    async def scenario() -> None:
        computation = Computation()
        async with plugged(computation) as batcher:
            future = batcher.submit([1, 2])
            while len(computation.preparers) < 2:
                await asyncio.sleep(0)
            computation.release.set()
            await future
        assert computation.preparers == ["test-run", "test-prepare"]

    run(scenario)


@pytest.mark.parametrize("runners", [1, 3])
def test_a_batcher_that_closes_answers_what_a_runner_is_preparing(runners: int) -> None:
    async def scenario() -> None:
        computation, may_prepare, is_preparing = Computation(), threading.Event(), threading.Event()

        def prepare(items: Sequence[int]) -> list[int]:
            is_preparing.set()
            may_prepare.wait()
            return list(items)

        limits = Limits(batch_rows=4, batch_tokens=100, queue_rows=16, runners=runners)
        batcher = make_batcher(computation, limits, prepare=prepare)
        future = batcher.submit([1])
        await asyncio.to_thread(is_preparing.wait)
        closing = asyncio.ensure_future(batcher.close(drain=True))
        await asyncio.sleep(0)
        may_prepare.set()
        await closing
        assert results(await future) == [answer(1)]

    run(scenario)
