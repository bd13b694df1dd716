"""The shards of a bundle, deployed or found: all of them are there before the first query."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from service.bundle import Bundle
from service.distributed.cluster import connected
from service.distributed.deployments import bound, deployment_name
from service.distributed.shards import Place, RayShards
from service.errors import BundleError, ShardUnavailable
from service.settings import Settings


@contextmanager
def deployed(bundle: Bundle, settings: Settings) -> Iterator[RayShards]:
    """Shards of this process's own, an application each, which go when the block is left.

    Those that a process of the same server has left behind, because it was killed, go first.

    Args:
        bundle: verified, with shards beside it.
        settings: with Ray's address.

    Raises:
        BundleError: there is no such cluster, or a shard cannot be opened there.
    """
    assert settings.ray is not None
    manifest = bundle.manifest
    server = f"{socket.gethostname()}-{settings.port}"
    places, targets = dict[str, Place](), list[serve.RunTarget]()
    for entry in manifest.shards:
        deployment = deployment_name(manifest, entry)
        places[entry.folder] = place = Place(deployment, f"{server}-{os.getpid()}-{deployment}")
        shard = bound(bundle.path, manifest, entry, settings)
        targets.append(serve.RunTarget(shard, name=place.application, route_prefix=None))
    replicas = len(places) * settings.shard_replicas
    with connected(settings.ray, replicas * settings.shard_threads):
        try:
            _delete_left_behind(server)
            try:
                serve.run_many(targets)
            except (RayError, RayServeException, RuntimeError) as error:
                raise BundleError(f"{bundle.path}: its shards cannot be opened by Ray: {error}") from error
            with _asked(bundle, places) as shards:
                yield shards
        finally:
            for place in places.values():
                serve.delete(place.application, _blocking=False)


@contextmanager
def found(bundle: Bundle, settings: Settings, application: str) -> Iterator[RayShards]:
    """Shards that are deployments of an application, as `service.distributed.application` makes them.

    Args:
        bundle: verified.
        settings: with Ray's address.
        application: its name.

    Raises:
        BundleError: a shard does not answer.
    """
    assert settings.ray is not None
    manifest = bundle.manifest
    places = {entry.folder: Place(deployment_name(manifest, entry), application) for entry in manifest.shards}
    with connected(settings.ray), _asked(bundle, places) as shards:
        yield shards


@contextmanager
def _asked(bundle: Bundle, places: Mapping[str, Place]) -> Iterator[RayShards]:
    try:
        shards = RayShards(places)
    except (RayError, RayServeException, ShardUnavailable) as error:
        raise BundleError(f"{bundle.path}: its shards cannot be opened by Ray: {error}") from error
    try:
        yield shards
    finally:
        shards.close()


def _delete_left_behind(server: str) -> None:
    """Delete applications of processes on this machine that are no more."""
    for name in serve.status().applications:
        found = re.match(rf"{re.escape(server)}-(\d+)-shard-", name)
        if found is not None and not Path("/proc", found[1]).exists():
            serve.delete(name)
