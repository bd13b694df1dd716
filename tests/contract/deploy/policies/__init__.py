"""What every set promises: each policy looks at all objects and says what is wrong with them, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.contract.deploy.policies import (
    containers,
    network,
    operation,
    ray_cluster,
    ray_operation,
    ray_pods,
    scaling,
    workload,
)
from tests.contract.deploy.release import Release

Policy = Callable[[Release], Iterator[str]]

POLICIES: dict[str, Policy] = {
    policy.__name__: policy
    for module in (workload, containers, operation, network, scaling, ray_pods, ray_operation, ray_cluster)
    for policy in module.POLICIES
}


def faults(release: Release) -> list[str]:
    """All faults that any policy finds, under its name."""
    return [f"{name}: {fault}" for name, policy in POLICIES.items() for fault in policy(release)]
