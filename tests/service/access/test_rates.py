from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.keys import Key, Role
from service.access.rates import Rates


def key(rate: float, burst: float, name: str = "shop") -> Key:
    return Key(name, b"", Role.PREDICT, rate, burst)


class Bucket:
    """The slow reference: tokens that drip in."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst, self.tokens, self.seen = rate, burst, burst, 0.0

    def ask(self, queries: int, now: float) -> bool:
        self.tokens = min(self.burst, self.tokens + (now - self.seen) * self.rate)
        self.seen = now
        if self.tokens < 1:
            return False
        self.tokens -= queries
        return True


# Eighths are exact in binary.
eighths = st.integers(0, 80).map(lambda number: number / 8)


@given(
    st.sampled_from([0.5, 1.0, 2.0, 8.0]),
    st.sampled_from([1.0, 4.0, 16.0]),
    st.lists(st.tuples(eighths, st.integers(1, 64)), max_size=30),
)
def test_a_bucket_is_one_of_tokens(rate: float, burst: float, requests: list[tuple[float, int]]) -> None:
    rates, reference, now = Rates(), Bucket(rate, burst), 0.0
    for pause, queries in requests:
        now += pause
        refusal = rates.refusal(key(rate, burst), now)
        assert (refusal is None) == reference.ask(queries, now)
        if refusal is None:
            rates.charge(key(rate, burst), queries, now)
        else:
            assert refusal.retry_after_seconds is not None
            wait = max(1, math.ceil((1 - reference.tokens) / rate))
            assert refusal.retry_after_seconds == wait
            assert rates.refusal(key(rate, burst), now + wait) is None


def test_each_key_has_a_bucket_and_none_without_a_rate() -> None:
    rates, now = Rates(), 5.0
    rates.charge(key(1, 1), 1, now)
    refusal = rates.refusal(key(1, 1), now)
    assert refusal is not None
    assert "at most 1 queries a second with the key shop" in str(refusal)
    assert rates.refusal(key(1, 1, "other"), now) is None
    rates.charge(key(math.inf, math.inf, "free"), 1000, now)
    assert rates.refusal(key(math.inf, math.inf, "free"), now) is None


@pytest.mark.parametrize("rate", [0.001, 1e9])
def test_extreme_rates_are_kept_too(rate: float) -> None:
    rates = Rates()
    rates.charge(key(rate, 1), 3, 0.0)
    assert rates.refusal(key(rate, 1), 2.999 / rate) is not None
    assert rates.refusal(key(rate, 1), 3.001 / rate) is None
