"""How many replicas there are for what waits."""

from __future__ import annotations

import pytest
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.config import AutoscalingContext

from service.distributed.replica import QUEUE_ROWS
from service.distributed.scaling import ROWS_A_REPLICA, autoscaling, replicas_wanted, wanted


@pytest.mark.parametrize(
    ("rows", "replicas", "expected"),
    [
        (0, 1, 1),
        (0, 3, 2),
        (ROWS_A_REPLICA, 1, 1),
        (ROWS_A_REPLICA + 1, 1, 2),
        (3 * ROWS_A_REPLICA, 1, 3),
        (30 * ROWS_A_REPLICA, 1, 4),
        (1.5 * ROWS_A_REPLICA, 2, 2),
        (0.9 * ROWS_A_REPLICA, 2, 1),
    ],
)
def test_replicas_follow_the_rows_that_wait(rows: float, replicas: int, expected: int) -> None:
    assert wanted(rows, replicas, autoscaling(1, 4)) == expected


def test_the_policy_reads_what_replicas_record() -> None:
    """As Ray Serve asks it: by the name that the configuration has."""
    config = autoscaling(1, 4)
    deployment = DeploymentID("shard-0")
    context = AutoscalingContext(
        deployment_id=deployment,
        deployment_name="shard-0",
        app_name="application",
        current_num_replicas=2,
        target_num_replicas=2,
        running_replicas=[],
        total_num_requests=0,
        total_queued_requests=0,
        aggregated_metrics={QUEUE_ROWS: {ReplicaID(name, deployment): 1.5 * ROWS_A_REPLICA for name in "ab"}},
        raw_metrics=None,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=4,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=config,
    )
    assert replicas_wanted(context) == (3, {})
    assert config.policy.get_policy()(context)[0] == 3
