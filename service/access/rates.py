"""How many queries a key may ask for: a bucket of tokens for each name.

A request passes while the bucket holds a token, and then takes one for each of its queries, even beyond the last: the
next one waits until the debt is paid. So a request of many queries passes at any rate, the rate holds in the long run,
and whether a request passes is known before its body is read.
"""

from __future__ import annotations

import math

from service.access.keys import Key
from service.errors import RateExceeded


class Rates:
    """The buckets. What a bucket lacks is kept as the second at which it will be full."""

    def __init__(self) -> None:
        self._full_at: dict[str, float] = {}

    def refusal(self, key: Key, now: float) -> RateExceeded | None:
        """Why a key may not ask for anything now, or None.

        Args:
            key: that was sent.
            now: second of `time.monotonic`.
        """
        if key.rate == math.inf:
            return None
        wait = self._full_at.get(key.name, now) - now - (key.burst - 1) / key.rate
        if wait <= 0:
            return None
        return RateExceeded(
            f"expected at most {key.rate:g} queries a second with the key {key.name}, found more",
            retry_after_seconds=max(1, math.ceil(wait)),
        )

    def charge(self, key: Key, queries: int, now: float) -> None:
        """Take tokens for a request that has passed.

        Args:
            key: that was sent with it.
            queries: in it.
            now: second of `time.monotonic`.
        """
        if key.rate == math.inf:
            return
        self._full_at[key.name] = max(now, self._full_at.get(key.name, now)) + queries / key.rate
