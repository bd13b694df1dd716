"""Every error the service raises on purpose, with the HTTP status it stands for.

    XmcError
    ├── SettingsError           wrong flag, environment variable or file of keys: the process ends with code 2
    ├── BundleError             a bundle cannot be trusted or loaded: the process ends with code 1
    ├── LoadError               a running server cannot be measured: the process ends with code 1
    └── RequestError            one request cannot be answered: a problem document with the class's status
        ├── MalformedHttp       400  what came is no HTTP request
        ├── MalformedBody       400  the body is not JSON
        ├── KeyRequired         401  no key, or one that is not known; carries WWW-Authenticate
        ├── Forbidden           403  the key does not allow it, or nobody is let in
        ├── UnknownModel        404  no such model or version
        ├── UnknownBundle       404  no such bundle to load, or no such load
        ├── RequestTooSlow      408  its end did not come in time
        ├── Conflict            409  what an administrator asks for would break what is served
        ├── BodyTooLarge        413  more bytes than XMC_MAX_BODY_BYTES
        ├── NotJson             415  the content type is not JSON
        ├── UnknownEncoding     415  the body is compressed in a way that is not known
        ├── InvalidRequest      422  JSON of the wrong shape or with values out of range
        ├── BundleRefused       422  a bundle that was to be loaded cannot be served
        ├── RateExceeded        429  more queries than the key may ask for; carries Retry-After
        ├── QueueFull           429  no room in the queue; carries Retry-After
        ├── HeadTooLarge        431  more bytes than the head of a request may have
        ├── NotReady            503  models are still loading, or one has failed; carries Retry-After
        ├── Draining            503  the process is shutting down; carries Retry-After
        ├── ShardUnavailable    503  a shard of the model's does not answer; carries Retry-After
        ├── DeadlineExceeded    504  the request's own timeout passed
        ├── NotSaved            507  a change of labels could not be written, so nothing has changed
        └── EngineFailed        500  the model failed on this request's rows: our bug

The sentence in an error says what was expected, what was found and where.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

LONGEST_SHOWN = 40


class XmcError(Exception):
    """Root of the tree; never raised itself."""


class SettingsError(XmcError):
    """A flag, an ``XMC_*`` variable or a file of keys is wrong."""


class BundleError(XmcError):
    """A bundle is missing, damaged, of an unknown schema version, or does not reproduce its golden answers."""


class LoadError(XmcError):
    """A running server cannot be measured, or its figures cannot be written."""


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


class MalformedHttp(RequestError):
    """What came is no HTTP request."""

    status = 400
    title = "Malformed HTTP"


class MalformedBody(RequestError):
    """The body is not JSON."""

    status = 400
    title = "Malformed JSON"


class KeyRequired(RequestError):
    """The request has no key, or one that is not known."""

    status = 401
    title = "Key required"


class Forbidden(RequestError):
    """The request's key does not allow it, or no key would."""

    status = 403
    title = "Forbidden"


class UnknownModel(RequestError):
    """The named model or version is not loaded."""

    status = 404
    title = "Unknown model"


class UnknownBundle(RequestError):
    """There is no such bundle in the folder to load from, or no such load."""

    status = 404
    title = "Unknown bundle"


class Conflict(RequestError):
    """What an administrator asks for would break what is served."""

    status = 409
    title = "Conflict"


class RequestTooSlow(RequestError):
    """The end of the request did not come in time."""

    status = 408
    title = "Request too slow"


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


class BundleRefused(RequestError):
    """A bundle that was to be loaded cannot be served; what was served before still is."""

    status = 422
    title = "Bundle refused"


class RateExceeded(RequestError):
    """The request's key has asked for more queries than it may."""

    status = 429
    title = "Rate exceeded"


class QueueFull(RequestError):
    """The queue has no room for the request's rows."""

    status = 429
    title = "Queue full"


class HeadTooLarge(RequestError):
    """The head of the request has more bytes than the service accepts."""

    status = 431
    title = "Head too large"


class NotReady(RequestError):
    """Models are still loading, or one of them has failed."""

    status = 503
    title = "Not ready"


class Draining(RequestError):
    """The process is shutting down and takes no new work."""

    status = 503
    title = "Shutting down"


class ShardUnavailable(RequestError):
    """A part of the model's labels cannot be searched now; ``"partial": true`` asks for the best of the others."""

    status = 503
    title = "Shard unavailable"


class DeadlineExceeded(RequestError):
    """The request's ``timeout_ms`` passed before its answer was there."""

    status = 504
    title = "Deadline exceeded"


class NotSaved(RequestError):
    """A change could not be written where it would survive, so nothing has changed."""

    status = 507
    title = "Not saved"


class EngineFailed(RequestError):
    """The model failed on this request's rows, alone and in company."""

    status = 500
    title = "Internal error"


def shown(value: object) -> str:
    """A value of a request as short JSON; lists and objects by their kind only."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def without_folders(sentence: str, paths: Iterable[Path]) -> str:
    """A sentence for clients: paths by their last names alone, since where things lie is for the log.

    Args:
        sentence: that may hold some of the paths, or longer ones that begin with them.
        paths: of the server.
    """
    for path in sorted(paths, key=lambda path: len(str(path)), reverse=True):
        sentence = sentence.replace(str(path), path.name)
    return sentence


def too_late() -> DeadlineExceeded:
    """The error of a request that is not answered in its time."""
    return DeadlineExceeded("timeout_ms passed before the answer was there")
