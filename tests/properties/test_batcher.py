"""The batcher's law, on real threads: everyone gets exactly the own answer or an error, and no bound is ever passed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from service.batching.queueing import Limits
from service.errors import DeadlineExceeded, EngineFailed, InvalidRequest, QueueFull, RequestError
from tests.service.blocking import Computation, answer, plugged, until_sent

POISON = range(1000, 1003)
FAILS_IN_COMPANY = range(2000, 2003)


@dataclass(frozen=True)
class Request:
    """Rows of one request and what becomes of its waiter while the runner is held up."""

    rows: tuple[int, ...]
    fate: str


items = st.one_of(st.integers(0, 50), st.sampled_from([*POISON, *FAILS_IN_COMPANY]))
requests = st.builds(
    Request,
    st.lists(items, min_size=1, max_size=6).map(tuple),
    st.sampled_from(["stays", "stays", "stays", "leaves", "is late"]),
)
limits = st.builds(
    Limits, st.integers(1, 6), st.integers(1, 40), st.integers(1, 25), runners=st.sampled_from([1, 1, 2, 3])
)


def tokens(item: int) -> int:
    return 1 + item % 7


async def ask(requests: list[Request], limits: Limits) -> tuple[Computation, list[object]]:
    """Queue all requests behind a held-up runner, let it go, and give what each waiter got."""
    computation = Computation()
    computation.fails_always = set(POISON)
    computation.fails_in_company = set(FAILS_IN_COMPANY)
    async with plugged(computation, limits, length=tokens) as client:
        outcomes: list[object] = []
        for request in requests:
            deadline = time.monotonic() + (0 if request.fate == "is late" else 3600)
            try:
                future = client.submit(request.rows, deadline)
            except RequestError as refusal:
                outcomes.append(refusal)
                continue
            if request.fate == "leaves":
                future.cancel()
            outcomes.append(future)
            assert client.queued_rows <= limits.queue_rows
        await until_sent()
        computation.release.set()
        futures = [outcome for outcome in outcomes if isinstance(outcome, asyncio.Future)]
        answers = iter(await asyncio.gather(*futures, return_exceptions=True))
    return computation, [next(answers) if isinstance(outcome, asyncio.Future) else outcome for outcome in outcomes]


@given(st.lists(requests, max_size=12), limits)
def test_every_waiter_gets_its_own_answer_or_an_error(requests: list[Request], limits: Limits) -> None:
    _, outcomes = asyncio.run(ask(requests, limits))
    for request, outcome in zip(requests, outcomes, strict=True):
        if isinstance(outcome, InvalidRequest):
            assert len(request.rows) > limits.queue_rows
        elif isinstance(outcome, QueueFull):
            assert 1 <= len(request.rows) <= limits.queue_rows
        elif request.fate == "leaves":
            assert isinstance(outcome, asyncio.CancelledError)
        elif request.fate == "is late":
            assert isinstance(outcome, DeadlineExceeded)
        elif set(request.rows) & set(POISON):
            assert isinstance(outcome, EngineFailed)
        else:
            assert isinstance(outcome, list)
            assert [served.result for served in outcome] == [answer(row) for row in request.rows]


@given(st.lists(requests, max_size=12), limits)
def test_no_batch_passes_a_bound(requests: list[Request], limits: Limits) -> None:
    computation, _ = asyncio.run(ask(requests, limits))
    for batch in computation.batches:
        assert len(batch) <= limits.batch_rows
        assert len(batch) == 1 or max(map(tokens, batch)) * len(batch) <= limits.batch_tokens
    for call in computation.prepared:
        assert len(call) <= 2 * limits.batch_rows


@given(st.lists(requests, max_size=12), limits)
def test_waiters_who_left_or_are_late_cost_no_compute(requests: list[Request], limits: Limits) -> None:
    marked = [
        Request(tuple(range(100 * i, 100 * i + len(request.rows))), request.fate)
        for i, request in enumerate(requests, 30)
    ]
    computation, outcomes = asyncio.run(ask(marked, limits))
    for request, outcome in zip(marked, outcomes, strict=True):
        if not isinstance(outcome, list):
            assert not any(computation.ran(row) for row in request.rows)
    gone = [
        request
        for request, outcome in zip(marked, outcomes, strict=True)
        if isinstance(outcome, asyncio.CancelledError | DeadlineExceeded)
    ]
    assert sum(rows for _, rows in computation.dropped) == sum(len(request.rows) for request in gone)


@given(st.permutations([(1, 2), (3,), (2000,), (4, 5, 6), (1000,), (7,)]), st.integers(1, 6), st.sampled_from([1, 2]))
def test_the_order_of_arrival_changes_no_answer(order: list[tuple[int, ...]], batch_rows: int, runners: int) -> None:
    requests = [Request(rows, "stays") for rows in order]
    _, outcomes = asyncio.run(ask(requests, Limits(batch_rows, batch_tokens=1000, queue_rows=25, runners=runners)))
    for rows, outcome in zip(order, outcomes, strict=True):
        if rows == (1000,):
            assert isinstance(outcome, EngineFailed)
        else:
            assert [served.result for served in outcome] == [answer(row) for row in rows]  # type: ignore[attr-defined]
