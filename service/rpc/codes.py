"""Errors as clients of gRPC see them: a code in place of the HTTP status, and the same sentence."""

from __future__ import annotations

from http import HTTPStatus

import grpc

from service.errors import RequestError

_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.TOO_MANY_REQUESTS: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}

Metadata = tuple[tuple[str, str], ...]


def code_of(error: RequestError) -> grpc.StatusCode:
    """The code that stands for an error; whatever has none is our bug."""
    return _CODES.get(HTTPStatus(error.status), grpc.StatusCode.INTERNAL)


def retry_metadata(error: RequestError) -> Metadata:
    """When to come back, if the error says it: for people, and as gRPC obeys where it retries by itself (gRFC A6)."""
    seconds = error.retry_after_seconds
    if seconds is None:
        return ()
    return ("retry-after", str(seconds)), ("grpc-retry-pushback-ms", str(1000 * seconds))
