"""gRPC calls: the messages on a stream of HTTP/2, and how a call ends."""

from __future__ import annotations

import logging
import struct
from typing import Any
from urllib.parse import quote

from keras_blocks.serving.compression import inflate, too_large
from keras_blocks.serving.faults import (
    CANCELLED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    RequestError,
    fault_of,
)
from keras_blocks.serving.frames import Headers, header_block
from keras_blocks.serving.http2 import Stream
from keras_blocks.serving.logs import fields
from keras_blocks.serving.observers import Seen, request_id

_PREFIX = struct.Struct(">BI")  # compressed or not, length
_TYPE = ("content-type", "application/grpc")
_HEADERS = header_block([(":status", "200"), _TYPE])
_DONE = header_block([("grpc-status", "0")])
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LONGEST_MESSAGE = 1000

_log = logging.getLogger("keras_blocks.serving")


class Call:
    """One call: the messages of a stream, one after another.

    Args:
        stream: where it happens.
        headers: the client's.
        limit: most bytes of a message.
        seen: who watches it, or None.
    """

    own_id = ""
    """What the client calls its request."""

    def __init__(self, stream: Stream, headers: Headers, limit: int, seen: Seen | None = None):
        self._stream = stream
        self._headers = headers
        self.seen = seen
        self._limit = limit
        self._encoding = headers.get(b"grpc-encoding", b"identity").decode("latin-1")
        self._chunks: list[bytes] = []
        self._size = 0
        self._finished = False
        self._answered = False
        self.timeout = _timeout(headers.get(b"grpc-timeout"))
        """The seconds that the client waits, or None."""
        if not headers.get(b"content-type", b"").startswith(b"application/grpc"):
            self._end(415)
            stream.send(b"", b"", header_block([(":status", "415"), _TYPE]))

    def on_message(self, data: Any) -> None:
        """One message came whole."""

    def on_end(self) -> None:
        """The client sends no more messages."""

    def on_gone(self) -> None:
        """The client wants no answer any more."""
        self._end(CANCELLED)

    def on_data(self, data: bytes, ended: bool) -> None:
        """A piece of messages came."""
        try:
            if data and not self._finished:
                self._chunks.append(data)
                self._size += len(data)
                self._read_messages()
            if ended and not self._finished:
                if self._size:
                    raise RequestError(400, "the message ends early")
                self.on_end()
        except Exception as error:
            self.fail(error)

    def answer(self, message: Any, last: bool = True) -> None:
        """Sends a message."""
        if self._finished:
            return
        data = message.SerializeToString()
        headers = b"" if self._answered else _HEADERS
        self._answered = True
        if last:
            self._end(OK)
        framed = _PREFIX.pack(0, len(data)) + data
        self._stream.send(headers, framed, _DONE if last else b"")

    def finish(self, code: int, message: str) -> None:
        """Ends the call without a message."""
        if self._finished:
            return
        self._end(code)
        shown = quote(message[:_LONGEST_MESSAGE], safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}")
        status = [("grpc-status", str(code)), ("grpc-message", shown)] if code else []
        first = [] if self._answered else [(":status", "200"), _TYPE]
        self._stream.send(b"", b"", header_block([*first, *(status or [("grpc-status", "0")])]))

    def fail(self, error: Exception) -> None:
        """Ends the call with what is wrong."""
        fault = fault_of(error)
        if fault.code == INTERNAL:
            named = fields(request_id=request_id(self._headers, self.own_id))
            _log.error("a call failed", exc_info=error, extra=named)
        code = RESOURCE_EXHAUSTED if fault.status == 413 else fault.code
        self.finish(code, fault.message)

    def _end(self, code: int) -> None:
        self._finished = True
        if self.seen is not None:
            self.seen.end(code)

    def _read_messages(self) -> None:
        while self._size >= _PREFIX.size:
            if len(self._chunks[0]) < _PREFIX.size:
                self._chunks = [b"".join(self._chunks)]
            compressed, length = _PREFIX.unpack_from(self._chunks[0])
            if length > self._limit:
                raise too_large(self._limit)
            end = _PREFIX.size + length
            if self._size < end:
                return
            whole = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks = [whole[end:]] if self._size > end else []
            self._size -= end
            self._stream.credit(end)
            data: Any = memoryview(whole)[_PREFIX.size : end]
            if compressed:
                data = inflate(data, self._encoding, self._limit)
            self.on_message(data)
            if self._finished:
                return


class OneMessageCall(Call):
    """A call with one message in and one out; it is answered when all of it came."""

    _message: Any = None

    def on_message(self, data: Any) -> None:
        """The message."""
        if self._message is not None:
            raise RequestError(400, "one message expected, more came")
        self._message = data

    def on_end(self) -> None:
        """The request is whole."""
        if self._message is None:
            raise RequestError(400, "one message expected, none came")
        self.run(self._message)

    def run(self, data: Any) -> None:
        """Answers, now or later."""


def _timeout(header: bytes | None) -> float | None:
    if not header:
        return None
    number, unit = header[:-1].decode("latin-1"), header[-1:].decode("latin-1")
    if unit not in _UNITS or not (number.isascii() and number.isdecimal() and len(number) <= 8):
        return None
    return int(number) * _UNITS[unit]
