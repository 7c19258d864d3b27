"""gRPC calls: the messages on a stream of HTTP/2, and how a call ends."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import Any
from urllib.parse import quote

from keras_blocks.serving.errors import RequestError
from keras_blocks.serving.status import CANCELLED, INTERNAL, OK, RESOURCE_EXHAUSTED, status_of
from keras_blocks.serving.telemetry.logs import fields
from keras_blocks.serving.telemetry.request_record import RequestRecord, request_id
from keras_blocks.serving.transport.compression import inflate, too_large
from keras_blocks.serving.transport.http2_frames import Headers, header_block
from keras_blocks.serving.transport.http2_stream import Stream

_PREFIX = struct.Struct(">BI")  # compressed or not, length
_TYPE = ("content-type", "application/grpc")
_HEADERS = header_block([(":status", "200"), _TYPE])
_DONE = header_block([("grpc-status", "0")])
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LONGEST_MESSAGE = 1000
# Of one call; then the others have their turn of the event loop.
_MESSAGES_A_TURN = 64

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

    def __init__(
        self, stream: Stream, headers: Headers, limit: int, seen: RequestRecord | None = None
    ):
        self._stream = stream
        self._headers = headers
        self.seen = seen
        self._limit = limit
        self._encoding = headers.get(b"grpc-encoding", b"identity").decode("latin-1")
        self._chunks: list[bytes | memoryview] = []
        self._size = 0
        self._all_came = False
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

    def takes_more(self) -> bool:
        """Whether another message may come now; `read_soon` when that changes."""
        return True

    def on_data(self, data: bytes, ended: bool) -> None:
        """A piece of messages came."""
        if data and not self._finished:
            self._chunks.append(data)
            self._size += len(data)
        self._all_came = ended
        self._read_on()

    def on_taken(self) -> None:
        """The client has taken all answers so far."""
        self.read_soon()

    def on_closing(self) -> None:
        """The server ends."""

    def read_soon(self) -> None:
        """Hands on what came and was held back."""
        if self._size or self._all_came:
            asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        try:
            for _ in range(_MESSAGES_A_TURN):
                if self._finished or not self.takes_more():
                    return
                if not self._read_message():
                    break
            else:
                self.read_soon()
                return
            if self._all_came:
                self._all_came = False  # it is told once
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
        fault = status_of(error)
        if fault.code == INTERNAL:
            named = fields(request_id=request_id(self._headers, self.own_id))
            _log.error("a call failed", exc_info=error, extra=named)
        code = RESOURCE_EXHAUSTED if fault.status == 413 else fault.code
        self.finish(code, fault.message)

    def _end(self, code: int) -> None:
        self._finished = True
        if self.seen is not None:
            self.seen.end(code)

    def _read_message(self) -> bool:
        """Hands on the next message, if it came whole."""
        if self._size < _PREFIX.size:
            return False
        if len(self._chunks[0]) < _PREFIX.size:
            self._chunks = [b"".join(self._chunks)]
        compressed, length = _PREFIX.unpack_from(self._chunks[0])
        if length > self._limit:
            raise too_large(self._limit)
        end = _PREFIX.size + length
        if self._size < end:
            return False
        whole = memoryview(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))
        self._chunks = [whole[end:]] if self._size > end else []
        self._size -= end
        self._stream.credit(end)
        data: Any = whole[_PREFIX.size : end]
        self.on_message(inflate(data, self._encoding, self._limit) if compressed else data)
        return True


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
