"""Requests for labels as bytes, understood without a parser as far as a refusal needs it."""

from __future__ import annotations

import re

from service.http.predict import PREDICT

_BEGINS = f"POST {PREDICT} HTTP/1.1\r\n".encode()
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d{1,9})\r\n", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"\r\nx-request-id: *([^\r\n]*)", re.IGNORECASE)
# What asks for more than an answer to one whole body; a field that goes on in another line could hide any of these.
_UNUSUAL = re.compile(rb"\r\n(?:connection|expect|upgrade|transfer-encoding|[ \t])", re.IGNORECASE)


def is_plain_request(data: bytes) -> bool:
    """Whether the bytes are one whole request for labels that asks for nothing unusual; if in doubt, they are not."""
    if not data.startswith(_BEGINS):
        return False
    head_end = data.find(_HEAD_END)
    length = _LENGTH.search(data, 0, head_end + 2)
    if length is None or len(data) != head_end + len(_HEAD_END) + int(length[1]):
        return False
    return _UNUSUAL.search(data, 0, head_end) is None


def given_request_id(data: bytes) -> bytes | None:
    """X-Request-Id of a plain request, if it has one."""
    head_end = data.find(_HEAD_END)
    found = _REQUEST_ID.search(data, 0, head_end)
    return None if found is None else found[1].rstrip()
