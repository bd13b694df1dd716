"""Errors as the client sees them: problem documents of RFC 9457, never a stack."""

from __future__ import annotations

from http import HTTPStatus

import orjson
from fastapi import Response

from service.errors import RequestError

MEDIA_TYPE = "application/problem+json"


def problem_response(
    status: int, title: str, detail: str, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """An answer that is a `Problem`; written without the model, because refusals must be cheap."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "request_id": request_id}
    return Response(orjson.dumps(document), status, headers, MEDIA_TYPE)


def error_response(error: RequestError, request_id: str) -> Response:
    """The answer that an error stands for, with Retry-After if it has one."""
    headers = None if error.retry_after_seconds is None else {"Retry-After": str(error.retry_after_seconds)}
    return problem_response(error.status, error.title, error.detail, request_id, headers)


def internal_error_response(request_id: str) -> Response:
    """An answer of 500 without a word about the cause."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "an unexpected error, which is our bug; the service's log has the cause under this request_id"
    return problem_response(status, status.phrase, detail, request_id)
