from __future__ import annotations

import pytest

from service.http.unread import given_request_id, is_plain_request

BODY = b'{"queries": ["a"]}'
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 18\r\n"
PLAIN = HEAD + b"\r\n" + BODY


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN.replace(b"Content-Length", b"content-length"),
        HEAD + b"X-Request-Id: abc\r\n\r\n" + BODY,
        PLAIN.replace(BODY, b"\r\n\r\nconnection: \r\n"),
    ],
)
def test_a_whole_request_needs_no_parser(data: bytes) -> None:
    assert is_plain_request(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b"P",
        PLAIN + PLAIN,
        HEAD,
        PLAIN.replace(b"POST", b"GET"),
        PLAIN.replace(b"/predict", b"/predict?x"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"Content-Length: 18\r\n", b""),
        PLAIN.replace(b": 18", b": x18"),
        PLAIN.replace(b"Host: x", b"Connection: close"),
        PLAIN.replace(b"Host: x", b"EXPECT: 100-continue"),
        PLAIN.replace(b"Host: x", b"Upgrade: h2c"),
        PLAIN.replace(b"Host: x", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Host: x", b"Host: x\r\n folded"),
    ],
)
def test_what_is_in_doubt_is_parsed(data: bytes) -> None:
    assert not is_plain_request(data)


@pytest.mark.parametrize(
    ("field", "name"), [(b"", None), (b"X-Request-Id: a-1 \r\n", b"a-1"), (b"x-request-id:b\r\n", b"b")]
)
def test_the_request_id_is_found_in_the_head_alone(field: bytes, name: bytes | None) -> None:
    body = b"\r\nx-request-id: no"
    assert given_request_id(HEAD.replace(b"18", b"%d" % len(body)) + field + b"\r\n" + body) == name
