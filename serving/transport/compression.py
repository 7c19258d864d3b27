"""Compressed bodies, opened up to a limit: a small one can hold any number of bytes."""

from __future__ import annotations

import zlib

from keras_blocks.serving.errors import RequestError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def inflate(data: bytes | memoryview, encoding: str, limit: int) -> bytes | memoryview:
    """The bytes that a body holds; `encoding` is what the client calls its compression.

    Raises:
        RequestError: the encoding is none of ours, the body is broken, or it holds too much.
    """
    if encoding == "identity":
        return data
    if encoding not in _WINDOW_BITS:
        raise RequestError(
            415, f"content encoding '{encoding[:40]}' is not read; send it plain, gzip or deflate"
        )
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        body = inflater.decompress(data, limit + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not {encoding}: {error}") from None
    if len(body) > limit:
        raise too_large(limit)
    if not inflater.eof:
        raise RequestError(400, f"the {encoding} body ends early")
    return body


def too_large(limit: int, closes: bool = False) -> RequestError:
    """The refusal of a body that is over the limit."""
    message = f"the body has more than the {limit} bytes that are allowed"
    return RequestError(413, message, closes=closes)
