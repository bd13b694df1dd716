"""What the process that speaks HTTP and one that computes say to each other about changes of labels.

A change is proposed to all versions of a model, written down if none has anything against it, and then decided on; in
between queries see the labels as they were.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import NamedTuple, Protocol

from service.batching.channel import Connection
from service.errors import EngineFailed, RequestError
from service.live.changes import LabelChange

logger = logging.getLogger(__name__)


class Reception(NamedTuple):
    """What a version says to a change.

    Attributes:
        unknown: ids that it would have to disable or enable, and does not have.
        own: ids that it would have to add or remove, and that are its bundle's.
        refusal: why it cannot add labels, if it would have to.
    """

    unknown: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    refusal: str | None = None


class Decision(Enum):
    """What becomes of a change that was proposed."""

    DONE = "done"
    DROPPED = "dropped"


class Changeable(Protocol):
    """What takes proposals."""

    def propose(self, change: LabelChange) -> Reception:
        """Make a change ready.

        Raises:
            RequestError: it cannot be made; nothing is ready then.
        """

    def decide(self, decision: Decision) -> None:
        """Let queries see the change that is ready, or drop it."""


def answer_proposals(connection: Connection, labels: Changeable) -> None:
    """Take proposals and decisions, one after the other, until the connection ends."""
    while (message := connection.receive_one()) is not None:
        if isinstance(message, Decision):
            labels.decide(message)
            connection.send(message)
            continue
        try:
            connection.send(labels.propose(message))
        except RequestError as error:
            connection.send(error)
        except Exception as error:
            logger.error("labels could not be changed", exc_info=error)
            connection.send(EngineFailed("the model failed on a change of its labels; the service's log has the cause"))
