"""HTTP/2 frames (RFC 9113) and header blocks (RFC 7541), as bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD_BYTES = 9
HEAD = struct.Struct(">HBBBI")  # length (two parts), type, flags, stream

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE = range(6)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(6, 10)

END_STREAM = ACK = 0x1
END_HEADERS, PADDED, HAS_PRIORITY = 0x4, 0x8, 0x20

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 5, 6, 7, 8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 9, 11

MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 3, 4, 5, 6

LARGEST_WINDOW = 2**31 - 1
LARGEST_FRAME = 2**24 - 1

_NUMBER = struct.Struct(">I")
_SETTING = struct.Struct(">HI")
_MOST_KNOWN_BLOCKS = 64
_MOST_HEADER_BYTES = 2**14

Headers = dict[bytes, bytes]


class ConnectionFault(Exception):
    """The client broke the protocol; the connection ends with this code."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """One frame.

    Example:
        >>> frame(PING, ACK, 0, bytes(8)).hex()
        '0000080601000000000000000000000000'
    """
    size = len(payload)
    return HEAD.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The settings of a frame."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "settings of no whole number")
    return list(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """The frame that lets the other side send so many bytes more."""
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(size))


def read_number(payload: bytes) -> int:
    """The number of a WINDOW_UPDATE or RST_STREAM frame."""
    if len(payload) != _NUMBER.size:
        raise ConnectionFault(FRAME_SIZE_ERROR, "a number of four bytes expected")
    return int(_NUMBER.unpack(payload)[0])


def reset(stream: int, code: int) -> bytes:
    """The frame that ends a stream."""
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def goaway(last_stream: int, code: int) -> bytes:
    """The frame that ends a connection."""
    return frame(GOAWAY, 0, 0, _NUMBER.pack(last_stream) + _NUMBER.pack(code))


def without_padding(payload: bytes, flags: int) -> bytes:
    """The content of a DATA or HEADERS frame."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= end:
            raise ConnectionFault(PROTOCOL_ERROR, "more padding than payload")
        start, end = 1, end - payload[0]
    return payload[start:end]


class HeaderReader:
    """Reads the header blocks of one connection.

    Clients send the same headers with every call, most of them as pointers into a table. A block
    that changes no table is kept with what it means until another one changes it.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder(max_header_list_size=_MOST_HEADER_BYTES)
        self._known: dict[bytes, Headers] = {}

    def read(self, block: bytes) -> Headers:
        """The headers of a block; a name that is given twice has both values, after a comma."""
        headers = self._known.get(block)
        if headers is not None:
            return headers
        try:
            headers = _merged(self._decoder.decode(block, raw=True))
        except hpack.HPACKError as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"a broken header block: {error}") from None
        if not _changes_nothing(block) or len(self._known) >= _MOST_KNOWN_BLOCKS:
            self._known.clear()
        else:
            self._known[block] = headers
        return headers


def _merged(fields: Iterable[tuple[bytes, bytes]]) -> Headers:
    headers: Headers = {}
    for name, value in ((bytes(name), bytes(value)) for name, value in fields):
        headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _changes_nothing(block: bytes) -> bool:
    """Whether a block that was read without fault leaves the table as it is: all its fields are
    pointers, or literals that are not to be remembered (RFC 7541, section 6).
    """
    position = 0
    while position < len(block):
        first = block[position]
        if first >= 0x80:
            _, position = _prefixed(block, position, 0x7F)
            continue
        if first >= 0x20:
            return False
        name, position = _prefixed(block, position, 0x0F)
        for _ in range(1 if name else 2):
            length, position = _prefixed(block, position, 0x7F)
            position += length
    return True


def _prefixed(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """The number that begins in the low bits of a byte, and where it ends."""
    value, position = block[position] & mask, position + 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte, position = block[position], position + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def header_block(headers: Sequence[tuple[str, str]]) -> bytes:
    """A block of literal headers that neither reads nor changes a table.

    Example:
        >>> header_block([("grpc-status", "0")]).hex()
        '000b677270632d7374617475730130'
    """
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    data = text.encode("ascii")
    size = len(data)
    if size < 127:
        return bytes([size]) + data
    rest, head = size - 127, b"\x7f"
    while rest >= 128:
        head += bytes([rest % 128 + 128])
        rest //= 128
    return head + bytes([rest]) + data
