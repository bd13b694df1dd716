"""How many replicas a shard has: as many as it takes for few rows to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext

from service.distributed.replica import QUEUE_ROWS

# As in the pods of one machine: so many rows may wait for each replica.
ROWS_A_REPLICA = 8
UP_SECONDS, DOWN_SECONDS, LOOK_BACK_SECONDS = 5.0, 300.0, 15.0


def autoscaling(fewest: int, most: int) -> AutoscalingConfig:
    """Between so many replicas and so many."""
    return AutoscalingConfig(
        min_replicas=fewest,
        max_replicas=most,
        look_back_period_s=LOOK_BACK_SECONDS,
        upscale_delay_s=UP_SECONDS,
        downscale_delay_s=DOWN_SECONDS,
        policy={"policy_function": f"{__name__}:{replicas_wanted.__name__}"},
    )


def replicas_wanted(context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """Ray Serve's question: how many replicas from now on."""
    waiting: Mapping[Any, float] = (context.aggregated_metrics or {}).get(QUEUE_ROWS, {})
    return wanted(sum(waiting.values()), context.target_num_replicas, context.config), {}


def wanted(rows: float, replicas: int, config: Any) -> int:
    """Replicas for so many rows that wait, of which there are so many now.

    In proportion to what waits for each; where less than half of what may wait does, one fewer.
    """
    share = rows / max(replicas, 1) / ROWS_A_REPLICA
    found = math.ceil(replicas * share) if share > 1 else replicas - (share < 1 / 2)
    return int(min(max(found, config.min_replicas), config.max_replicas))
