"""The whole service as an application of Ray Serve: servers, and the shards that they ask.

    serve run service.distributed.application:build bundles=/models/products/head most_shard_replicas=4

A server is what ``xmc-serve run`` is, but for its sockets: the same application, behind Ray Serve's own, with the same
process for its model, where texts are encoded and batches made.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from service.bundle.reader import read_manifest
from service.distributed.cluster import LOGGING
from service.distributed.deployments import bound
from service.errors import BundleError, SettingsError
from service.http.app import create_app
from service.http.asgi import Application as AsgiApplication
from service.http.lifecycle import Lifecycle, Phase
from service.http.server import open_metrics
from service.kernels import bring
from service.logs import configure_logging
from service.models.launch import Launched, Order, launch
from service.ray_address import AUTO
from service.settings import Settings, load_settings, options
from service.threads import limit_threads

SERVER = "server"
# Its own queue refuses what is too much, in words of its own.
MOST_ONGOING = 4096
LOOK_SECONDS = 0.1


def build(arguments: Mapping[str, Any]) -> Application:
    """The application, as Ray Serve's configuration files and ``serve run`` ask for it.

    Args:
        arguments: settings of the service by their names, as text or numbers, before the ``XMC_*`` variables.

    Raises:
        SettingsError: there is no such setting or value, or other than one bundle.
        BundleError: the bundle's manifest cannot be read.
    """
    unknown = arguments.keys() - options().keys()
    if unknown:
        raise SettingsError(f"expected names of settings, found {', '.join(sorted(unknown))}")
    written = {"ray": AUTO} | {name: str(value) for name, value in arguments.items()}
    settings = load_settings(written, os.environ)
    if len(settings.bundles) != 1:
        raise SettingsError(f"bundles: expected one for an application, found {len(settings.bundles)}")
    (path,) = settings.bundles
    manifest = read_manifest(path)
    shards = [bound(path, manifest, entry, settings) for entry in manifest.shards]
    server: Deployment = serve.deployment(  # type: ignore[assignment]
        serve.ingress()(HttpServer),
        name=SERVER,
        max_ongoing_requests=MOST_ONGOING,
        # Two would want the same ports.
        max_replicas_per_node=1,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        ray_actor_options={"num_cpus": settings.threads},
        logging_config=LOGGING,
    )
    return server.bind(settings, path, *shards)


class HttpServer:
    """A replica that speaks HTTP, and the process of its model.

    Args:
        settings: of the service.
        path: of the bundle.
        _shards: that the bundle names, so that they are deployed with it; its model finds them by their names.
    """

    def __init__(self, settings: Settings, path: Path, *_shards: object) -> None:
        limit_threads(settings.batch_threads)
        bring()
        self._settings = settings
        self._path = path
        self._lifecycle = Lifecycle()
        self._application = serve.get_replica_context().app_name

    def __serve_build_asgi_app__(self) -> AsgiApplication:
        """What answers requests; Ray Serve asks for it."""
        log = configure_logging(self._settings.log_format)
        metrics = open_metrics(self._settings, lambda: log.lost)
        workers = [self._launch(Order(self._path, self._settings))]
        return create_app(self._settings, self._lifecycle, metrics, workers, self._launch)

    async def check_health(self) -> None:
        """Whether it can go on; Ray Serve asks for it first of all, and sends no request before the answer.

        Raises:
            BundleError: its model cannot be served.
        """
        while self._lifecycle.phase is Phase.LOADING and self._lifecycle.failure is None:
            await asyncio.sleep(LOOK_SECONDS)
        if self._lifecycle.failure is not None:
            raise BundleError(self._lifecycle.failure)

    def _launch(self, order: Order) -> Launched:
        return launch(order._replace(application=self._application))
