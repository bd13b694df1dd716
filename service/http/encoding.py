"""Bodies that come compressed."""

from __future__ import annotations

import zlib

from service.errors import MalformedBody, UnknownEncoding
from service.http.asgi import Headers, header, too_large

# What zlib calls its formats. "deflate" is a zlib stream by RFC 9110, not bare deflate data.
_FORMATS = {b"gzip": 31, b"deflate": 15}


def plain_body(headers: Headers, body: bytes, limit_bytes: int) -> bytes:
    """A body without the compression that ``Content-Encoding`` names.

    Raises:
        UnknownEncoding: it is neither gzip nor deflate.
        MalformedBody: the body is not of that format.
        BodyTooLarge: it would have more bytes than the limit; no more of it is unpacked.
    """
    encoding = (header(headers, b"content-encoding") or b"identity").strip().lower()
    if encoding == b"identity":
        return body
    name = encoding.decode("latin-1")
    if encoding not in _FORMATS:
        raise UnknownEncoding(f"expected Content-Encoding: gzip or deflate, found {name}")
    unpacker = zlib.decompressobj(_FORMATS[encoding])
    try:
        plain = unpacker.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise MalformedBody(f"the body is not {name}, as Content-Encoding says: {error}") from None
    if len(plain) > limit_bytes:
        raise too_large(limit_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise MalformedBody(f"the body is not one whole {name} stream, as Content-Encoding says")
    return plain
