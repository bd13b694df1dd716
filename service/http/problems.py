"""Errors as the client sees them: problem documents of RFC 9457, never a stack."""

from __future__ import annotations

from http import HTTPStatus

import orjson

from service.errors import KeyRequired, RequestError
from service.http.reply import Reply
from service.inference.schemas import encode_error

MEDIA_TYPE = "application/problem+json"
OUR_BUG = "an unexpected error, which is our bug; the service's log has the cause under this request_id"
# Under it everything is of the Open Inference Protocol.
INFERENCE = "/v2"

_MEDIA_TYPE = MEDIA_TYPE.encode()


def problem_reply(status: int, title: str, detail: str, request_id: str, *headers: tuple[bytes, bytes]) -> Reply:
    """An answer that is a `Problem`; written without the model, because refusals must be cheap."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": request_id}
    return Reply.of(status, orjson.dumps(document), _MEDIA_TYPE, *headers)


def error_reply(error: RequestError, request_id: str, path: str = "") -> Reply:
    """The answer that an error stands for, with the headers that belong to it."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_seconds))
    if isinstance(error, KeyRequired):
        headers.append((b"www-authenticate", b"Bearer"))
    return reply_in_style(path, error.status, error.title, error.detail, request_id, *headers)


def internal_error_reply(request_id: str, path: str = "") -> Reply:
    """An answer of 500 without a word about the cause."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return reply_in_style(path, status, status.phrase, OUR_BUG, request_id)


def reply_in_style(
    path: str, status: int, title: str, detail: str, request_id: str, *headers: tuple[bytes, bytes]
) -> Reply:
    """An error as clients of a path read it: a `Problem`, or what the Open Inference Protocol says instead."""
    if path == INFERENCE or path.startswith(INFERENCE + "/"):
        return Reply.of(status, encode_error(detail), b"application/json", *headers)
    return problem_reply(status, title, detail, request_id, *headers)
