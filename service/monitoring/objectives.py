"""What the service promises and when somebody is told: every threshold of the rules, in one place.

After a change write the files anew (``python -m service.monitoring``): the numbers stand in them.
"""

from __future__ import annotations

from typing import NamedTuple

from service.metrics import SECONDS

# Of the requests for labels that were not the client's mistake (4xx), so many get an answer.
AVAILABILITY = 0.999
# ... and so many of those get it within LATENCY_SECONDS, which must be a bound of the histogram's buckets.
LATENCY_SHARE = 0.99
LATENCY_SECONDS = SECONDS[11]


class Burn(NamedTuple):
    """An error budget of 30 days is used up too fast over two windows at once.

    The long one says that it matters, the short one that it still goes on.

    Attributes:
        factor: how many times as fast as would use up the budget in exactly 30 days.
        long: window.
        short: window.
    """

    factor: float
    long: str
    short: str


# 2 % of a month's budget in an hour, 5 % in six: somebody must look now.
FAST_BURNS = (Burn(14.4, "1h", "5m"), Burn(6, "6h", "30m"))
# 10 % in a day, or all of it in a month: somebody must look this week.
SLOW_BURNS = (Burn(3, "1d", "2h"), Burn(1, "3d", "6h"))
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

# Of all requests for labels, turned away because a queue was full or the service did not take any.
REFUSED_SHARE = 0.01
# How late the event loop may run a timer, at the 99th percentile.
EVENT_LOOP_LAG_SECONDS = SECONDS[10]
# Of what the service or a GPU may have.
MEMORY_SHARE = 0.9
GPU_MEMORY_SHARE = 0.95

# Largest difference between two distributions of best scores (Kolmogorov and Smirnov's), from 0 to 1. Between two hours
# of DRIFT_QUERIES queries each, chance alone makes more than 0.13 of it once in a thousand.
DRIFT = 0.2
DRIFT_QUERIES = 500
