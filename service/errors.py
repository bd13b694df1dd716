"""Every error the service raises on purpose, with the HTTP status it stands for.

    XmcError
    ├── SettingsError           wrong flag or environment variable: the process ends with code 2
    ├── BundleError             a bundle cannot be trusted or loaded: the process ends with code 1
    └── RequestError            one request cannot be answered: a problem document with the class's status
        ├── MalformedBody       400  the body is not JSON
        ├── UnknownModel        404  no such model or version
        ├── BodyTooLarge        413  more bytes than XMC_MAX_BODY_BYTES
        ├── NotJson             415  the content type is not JSON
        ├── UnknownEncoding     415  the body is compressed in a way that is not known
        ├── InvalidRequest      422  JSON of the wrong shape or with values out of range
        ├── QueueFull           429  no room in the queue; carries Retry-After
        ├── NotReady            503  models are still loading, or one has failed; carries Retry-After
        ├── Draining            503  the process is shutting down; carries Retry-After
        ├── DeadlineExceeded    504  the request's own timeout passed
        └── EngineFailed        500  the model failed on this request's rows: our bug

The sentence in an error says what was expected, what was found and where.
"""

from __future__ import annotations

from typing import ClassVar


class XmcError(Exception):
    """Root of the tree; never raised itself."""


class SettingsError(XmcError):
    """A flag or an ``XMC_*`` variable is unknown or out of range."""


class BundleError(XmcError):
    """A bundle is missing, damaged, of an unknown schema version, or does not reproduce its golden answers."""


class RequestError(XmcError):
    """One request cannot be answered.

    Attributes:
        status: HTTP status of the problem document.
        title: its short, constant title.
        retry_after_seconds: value of the ``Retry-After`` header, or None for no header.
    """

    status: ClassVar[int]
    title: ClassVar[str]

    def __init__(self, detail: str, *, retry_after_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds


class MalformedBody(RequestError):
    """The body is not JSON."""

    status = 400
    title = "Malformed JSON"


class UnknownModel(RequestError):
    """The named model or version is not loaded."""

    status = 404
    title = "Unknown model"


class BodyTooLarge(RequestError):
    """The body has more bytes than the service accepts."""

    status = 413
    title = "Body too large"


class NotJson(RequestError):
    """The content type is not ``application/json``."""

    status = 415
    title = "Body is not JSON"


class UnknownEncoding(RequestError):
    """``Content-Encoding`` names a compression that the service does not undo."""

    status = 415
    title = "Unknown encoding"


class InvalidRequest(RequestError):
    """The body is JSON, but not a request: a wrong field, type or value."""

    status = 422
    title = "Invalid request"


class QueueFull(RequestError):
    """The queue has no room for the request's rows."""

    status = 429
    title = "Queue full"


class NotReady(RequestError):
    """Models are still loading, or one of them has failed."""

    status = 503
    title = "Not ready"


class Draining(RequestError):
    """The process is shutting down and takes no new work."""

    status = 503
    title = "Shutting down"


class DeadlineExceeded(RequestError):
    """The request's ``timeout_ms`` passed before its answer was there."""

    status = 504
    title = "Deadline exceeded"


class EngineFailed(RequestError):
    """The model failed on this request's rows, alone and in company."""

    status = 500
    title = "Internal error"


def too_late() -> DeadlineExceeded:
    """The error of a request that is not answered in its time."""
    return DeadlineExceeded("timeout_ms passed before the answer was there")
