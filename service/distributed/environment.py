"""What Ray reads from the environment when it is imported."""

from __future__ import annotations

import os
from types import MappingProxyType

# A batch of queries, or the rows of a large filter, are more than the 4 MB that gRPC takes of itself.
MESSAGES = {"RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str((1 << 31) - 1)}
# Replicas are asked by gRPC, on one event loop that is ours: by way of Ray's object store, and of a loop for routing
# and one for the answers, a question takes several times as long.
DRIVER = MappingProxyType(
    {
        "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        **MESSAGES,
    }
)
# Replicas compute on a thread of their own already; every two seconds they say how many rows wait.
REPLICA = MappingProxyType(
    {
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "2",
        **MESSAGES,
    }
)


def prepare() -> None:
    """Set it for this process, unless the user has decided otherwise; call it before Ray is imported."""
    for name, value in DRIVER.items():
        os.environ.setdefault(name, value)
