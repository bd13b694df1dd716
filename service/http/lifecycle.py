"""Where the process is in its life, as one value that the server sets and every part reads."""

from __future__ import annotations

from enum import Enum

from service.errors import Draining, NotReady, RequestError


class Phase(Enum):
    """The phases in their order; ``LEAVING`` and ``CLOSED`` are only reached on a signal."""

    LOADING = "models are still loading"
    SERVING = "serving"
    LEAVING = "shutting down: still answering, so that load balancers notice"
    CLOSED = "shutting down: no new requests"


class Lifecycle:
    """The phase and, if loading failed, the sentence that says why.

    Attributes:
        phase: the current phase.
        failure: why the process cannot serve and will exit, or None.
    """

    def __init__(self) -> None:
        self.phase = Phase.LOADING
        self.failure: str | None = None

    def loaded(self) -> None:
        """All models are ready; a shutdown that has begun goes on."""
        if self.phase is Phase.LOADING:
            self.phase = Phase.SERVING

    @property
    def is_leaving(self) -> bool:
        """Whether a shutdown has begun."""
        return self.phase in (Phase.LEAVING, Phase.CLOSED)

    def refusal(self) -> RequestError | None:
        """Why no query is taken in this phase, or None."""
        if self.phase is Phase.CLOSED:
            return Draining("the service is shutting down", retry_after_seconds=1)
        if self.failure is not None:
            return NotReady(self.failure, retry_after_seconds=1)
        if self.phase is Phase.LOADING:
            return NotReady(Phase.LOADING.value, retry_after_seconds=1)
        return None
