"""The shards of a bundle as deployments of Ray Serve, one for each.

Their names hold the bundle's version: what one version asks is answered by its own shards, also while those of another
are there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from service.bundle.manifest import Manifest
from service.bundle.reader import read_manifest
from service.bundle.shards import ShardEntry
from service.distributed.cluster import LOGGING
from service.distributed.environment import REPLICA
from service.distributed.replica import Replica
from service.distributed.scaling import autoscaling
from service.settings import Settings

# More wait at a replica than it computes: there their rows are counted.
MOST_AT_A_REPLICA = 64
GRACE_SECONDS = 10.0


def deployment_name(manifest: Manifest, entry: ShardEntry) -> str:
    """What the deployment of a shard is called."""
    return f"{entry.folder}-{manifest.version}"


def bound(path: Path, manifest: Manifest, entry: ShardEntry, settings: Settings) -> Application:
    """The deployment of one shard.

    Args:
        path: of the bundle that names it, as every node sees it.
        manifest: of that bundle.
        entry: of the shard.
        settings: say how many replicas it has, and what each takes.
    """
    replicas: dict[str, Any] = (
        {"num_replicas": settings.shard_replicas}
        if settings.most_shard_replicas is None
        else {"autoscaling_config": autoscaling(settings.shard_replicas, settings.most_shard_replicas)}
    )
    threads = settings.shard_threads
    deployment: Deployment = serve.deployment(  # type: ignore[assignment]
        Replica,
        name=deployment_name(manifest, entry),
        max_ongoing_requests=MOST_AT_A_REPLICA,
        graceful_shutdown_timeout_s=GRACE_SECONDS,
        ray_actor_options={
            "num_cpus": threads,
            "memory": shard_bytes(path, entry),
            "runtime_env": {"env_vars": dict(REPLICA)},
        },
        logging_config=LOGGING,
        **replicas,
    )
    return deployment.bind(path.resolve(), entry, threads)


def shard_bytes(path: Path, entry: ShardEntry) -> int:
    """Bytes of a shard's files, which a node must have in memory."""
    files = read_manifest(path.resolve().parent / entry.folder).files
    return sum(file.size for file in files.values())
