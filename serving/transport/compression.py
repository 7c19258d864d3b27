"""Compressed bodies, opened up to a limit: a small one can hold any number of bytes."""

from __future__ import annotations

import zlib

from keras_blocks.serving.errors import RequestError

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_MOST_ENCODINGS = 3
_PIECE_BYTES = 2**12  # what is left of one behind a member is copied


def inflate(data: bytes | memoryview, encoding: str, limit: int) -> bytes | memoryview:
    """The bytes that a body holds.

    Args:
        data: the body.
        encoding: what the client calls its compression; several, in the order in which they were
            applied, are separated by commas.
        limit: most bytes that it may hold.
    Raises:
        RequestError: the encoding is none of ours, the body is broken, or it holds too much.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    if len(names) > _MOST_ENCODINGS:
        raise RequestError(415, f"at most {_MOST_ENCODINGS} content encodings are read")
    for name in reversed(names):
        if name != "identity":
            data = _inflate_one(data, name.removeprefix("x-"), limit)
    return data


def _inflate_one(data: bytes | memoryview, encoding: str, limit: int) -> bytes:
    if encoding not in _WINDOW_BITS:
        raise RequestError(
            415, f"content encoding '{encoding[:40]}' is not read; send it plain, gzip or deflate"
        )
    view, position, size = memoryview(data), 0, 0
    parts: list[bytes] = []
    inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        while position < len(view):
            if inflater.eof and encoding == "gzip":  # it may have any number of members
                inflater = zlib.decompressobj(_WINDOW_BITS[encoding])
            elif inflater.eof:
                raise RequestError(400, f"more came behind the {encoding} body")
            piece = view[position : position + _PIECE_BYTES]
            parts.append(inflater.decompress(piece, limit + 1 - size))
            position += len(piece) - len(inflater.unused_data)
            size += len(parts[-1])
            if size > limit:
                raise too_large(limit)
    except zlib.error as error:
        raise RequestError(400, f"the body is not {encoding}: {error}") from None
    if not inflater.eof:
        raise RequestError(400, f"the {encoding} body ends early")
    return b"".join(parts)


def too_large(limit: int, closes: bool = False) -> RequestError:
    """The refusal of a body that is over the limit."""
    message = (
        f"the body has more than the {limit} bytes that are allowed; send fewer rows, or have the "
        f"server started with a larger --max-body-mb"
    )
    return RequestError(413, message, closes=closes)
