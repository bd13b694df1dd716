"""Whether the process is alive and ready, for every protocol that asks."""

from __future__ import annotations

from service.errors import NotReady, RequestError
from service.http.lifecycle import Lifecycle
from service.models.registry import Registry


def dead(registry: Registry) -> RequestError | None:
    """Why only a restart can help, or None."""
    reason = registry.unhealthy()
    return NotReady(reason, retry_after_seconds=1) if reason else None


def unready(lifecycle: Lifecycle, registry: Registry) -> RequestError | None:
    """Why no traffic should be sent: models are loading or have died, or a shutdown has begun. None when it should."""
    if refusal := lifecycle.refusal():
        return refusal
    if lifecycle.is_leaving:
        return NotReady(lifecycle.phase.value, retry_after_seconds=1)
    return dead(registry)


def model_unready(wanted: str, lifecycle: Lifecycle, registry: Registry) -> RequestError | None:
    """Why a model takes no queries, or None.

    Raises:
        UnknownModel: no such model is loaded.
    """
    if refusal := lifecycle.refusal():
        return refusal
    model = registry.main(wanted)
    if not model.healthy:
        return NotReady(f"{model.identity} stopped after an internal error", retry_after_seconds=1)
    return None
