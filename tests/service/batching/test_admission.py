from __future__ import annotations

import pytest

from service.batching.admission import LONGEST_RETRY_SECONDS, OVERLOAD_LASTS_SECONDS, Admission
from service.batching.queueing import Limits
from service.errors import InvalidRequest, QueueFull

LIMITS = Limits(batch_rows=8, batch_tokens=100, queue_rows=100, overload_seconds=0.01)


def retry_after(rows_per_second: int, queued: int) -> int | None:
    admission = Admission(LIMITS)
    admission.learn(rows_per_second, 1.0)
    return admission.refuse(queued, rows=1).retry_after_seconds


def test_the_refused_come_back_when_there_should_be_room() -> None:
    assert retry_after(1000, queued=100) == 1
    assert retry_after(10, queued=124) == 3
    assert retry_after(1, queued=100_000) == LONGEST_RETRY_SECONDS
    assert Admission(LIMITS).refuse(queued=100, rows=1).retry_after_seconds == 1


def test_a_request_that_never_fits_is_not_told_to_come_back() -> None:
    refusal = Admission(LIMITS).refuse(queued=0, rows=101)
    assert isinstance(refusal, InvalidRequest)
    assert refusal.retry_after_seconds is None


def test_under_overload_as_much_may_wait_as_is_served_in_the_time_set() -> None:
    admission = Admission(LIMITS)
    admission.learn(1000, 1.0)
    assert admission.room(1) == 100
    assert isinstance(admission.refuse(queued=100, rows=1), QueueFull)
    assert admission.room(1) == 10
    assert admission.room(30) == 30  # if nobody else waits
    assert admission.room(1000) == 100
    admission._last_refusal -= OVERLOAD_LASTS_SECONDS
    assert admission.room(1) == 100


def test_there_is_always_room_for_a_batch() -> None:
    admission = Admission(LIMITS)
    admission.learn(1, 1.0)
    admission.refuse(queued=100, rows=1)
    assert admission.room(1) == LIMITS.batch_rows


def test_the_rate_follows_the_batches() -> None:
    admission = Admission(LIMITS)
    admission.learn(1000, 1.0)
    for _ in range(50):
        admission.learn(2000, 1.0)
    admission.refuse(queued=100, rows=1)
    assert admission.room(1) == pytest.approx(20, abs=1)
