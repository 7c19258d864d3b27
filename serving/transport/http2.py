"""HTTP/2 on asyncio's transports: the streams of one connection, and what may flow when.

As much of it as calls need: no push, no priorities. A call is handed on in the same turn of the
event loop in which its last byte came, so that all calls of a turn can share one run of a model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from keras_blocks.serving.limits import Limits
from keras_blocks.serving.transport import http2_frames as h2
from keras_blocks.serving.transport.connection import FIRST_SECONDS, WriteStallDetector, read_little
from keras_blocks.serving.transport.http2_stream import Listener, Stream

_DEFAULT_WINDOW = 2**16 - 1
_FRAME_BYTES = 2**20  # the largest frame that we take; small ones cost a turn of the loop each
_HEADER_BYTES = 2**14
_MOST_STREAMS = 512
# Clients may give up calls, but not open and reset them faster than we could answer.
_RESETS_PER_SECOND = 1000
# An idle client keeps its connection for longer than over HTTP/1: it opens only one.
_IDLE_FACTOR = 10


class Http2Connection(asyncio.Protocol):
    """One client.

    Args:
        open_stream: gives the listener of a new stream with these headers.
        limits: what one request may ask for.
        connections: where this one is listed while it is open.
    """

    def __init__(
        self,
        open_stream: Callable[[Stream, h2.Headers], Listener],
        limits: Limits,
        connections: set[Any],
    ):
        self._open_stream = open_stream
        self._limits = limits
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._unread = WriteStallDetector()
        self._buffer = b""
        self._greeted = False
        self._headers = h2.HeaderReader()
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._block: tuple[int, int, bytes] | None = None  # headers that CONTINUATION goes on
        self._window = _DEFAULT_WINDOW
        self._first_window = _DEFAULT_WINDOW  # of a stream
        self._frame_bytes = 2**14
        self._held = 0  # bytes that came and are in use
        self._used = 0  # bytes that are done with, which the client may send anew when told
        self._our_window = 4 * limits.body_bytes + _FRAME_BYTES
        self._closing = False
        self._last = self._made = self._loop.time()
        self._resets = 0
        self._opened = False  # whether the client takes more than it did

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connects."""
        self._transport = transport  # type: ignore[assignment]
        read_little(transport)
        self._connections.add(self)
        ours = [
            (h2.MAX_CONCURRENT_STREAMS, _MOST_STREAMS),
            (h2.INITIAL_WINDOW_SIZE, self._limits.body_bytes + _FRAME_BYTES),
            (h2.MAX_FRAME_SIZE, _FRAME_BYTES),
            (h2.MAX_HEADER_LIST_SIZE, _HEADER_BYTES),
        ]
        self._write(h2.settings(ours) + h2.window_update(0, self._our_window - _DEFAULT_WINDOW))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, and its calls with it."""
        self._connections.discard(self)
        self._closing = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.leave()
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Bytes of frames."""
        self._last = self._loop.time()
        buffer = self._buffer + data if self._buffer else data
        try:
            start = 0 if self._greeted else self._read_preface(buffer)
            size = len(buffer)
            while self._greeted and size - start >= h2.HEAD_BYTES:
                high, low, kind, flags, number = h2.HEAD.unpack_from(buffer, start)
                length = high << 8 | low
                if length > _FRAME_BYTES:
                    raise h2.ConnectionFault(h2.FRAME_SIZE_ERROR, "a frame over the announced size")
                end = start + h2.HEAD_BYTES + length
                if end > size:
                    break
                payload = buffer[start + h2.HEAD_BYTES : end]
                self._read_frame(kind, flags, number & h2.LARGEST_WINDOW, payload)
                start = end
            self._buffer = buffer[start:]
            if self._opened:  # once for all of its frames: each may open little, on many streams
                self._opened = False
                for stream in [s for s in self._streams.values() if s.pending]:
                    self._flow(stream)
        except h2.ConnectionFault as fault:
            self._end(fault.code)

    def pause_writing(self) -> None:
        """The client does not read its answers: it may not ask for more."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # The server calls these

    def announce_end(self) -> None:
        """Tells the client to send no more; what it sends all the same is answered."""
        self._write(h2.goaway(h2.LARGEST_WINDOW, h2.NO_ERROR))

    def close_when_idle(self) -> None:
        """Ends the connection once the calls that came are answered."""
        for stream in list(self._streams.values()):
            if stream.listener is not None:
                stream.listener.on_closing()
        if self._last_stream or self._loop.time() - self._made > FIRST_SECONDS:
            self._leave()

    def abort(self) -> None:
        """Ends the connection when the client has taken what was written."""
        if self._transport is not None:
            self._transport.close()

    def expire(self, now: float) -> None:
        """Ends the connection or the calls of a client that has been silent for too long."""
        self._resets = 0
        silent = self._limits.silent_seconds
        if self._unread.drop(self._transport, now, silent):
            return
        for stream in list(self._streams.values()):
            waits = stream.pending or not (stream.ended or stream.may_pause)
            if waits and now - stream.last > silent:
                self._reset(stream, h2.CANCEL)
        patience = self._limits.idle_seconds * _IDLE_FACTOR if self._greeted else silent
        if not self._streams and now - self._last > patience:
            self._leave()

    # Streams call these

    def send(self, stream: Stream, headers: bytes, data: bytes, trailers: bytes) -> None:
        """See `Stream.send`."""
        if stream.number not in self._streams:
            return
        number = stream.number
        last = (
            h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, number, trailers)
            if trailers
            else b""
        )
        if last and not stream.ended:
            last += h2.reset(number, h2.NO_ERROR)  # the rest of the request is not needed
        first = h2.frame(h2.HEADERS, h2.END_HEADERS, number, headers) if headers else b""
        fits = len(data) <= self._room(stream)
        if fits and not stream.pending:
            if data:
                self._window -= len(data)
                stream.window -= len(data)
                first += h2.frame(h2.DATA, 0, number, data)
            self._write(first + last)
            if last:
                self._forget(stream)
            return
        self._write(first)
        if data:
            stream.pending.append((memoryview(data), False))
        if last:
            stream.pending.append((memoryview(last), True))
        self._flow(stream)

    def credit(self, stream: Stream, size: int) -> None:
        """See `Stream.credit`."""
        if stream.number in self._streams:
            stream.held -= size
            self._use(size)
            stream.used += size
            if stream.used > self._limits.body_bytes // 2 and not stream.ended:
                self._write(h2.window_update(stream.number, stream.used))
                stream.used = 0

    # Frames

    def _read_preface(self, buffer: bytes) -> int:
        if not h2.PREFACE.startswith(buffer[: len(h2.PREFACE)]):
            raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "this is no HTTP/2")
        if len(buffer) < len(h2.PREFACE):
            return 0
        self._greeted = True
        return len(h2.PREFACE)

    def _read_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != h2.CONTINUATION:
            raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "headers were not finished")
        if kind == h2.DATA:
            self._read_data(flags, number, payload)
        elif kind == h2.HEADERS:
            payload = h2.without_padding(payload, flags)
            self._read_block(flags, number, payload[5:] if flags & h2.HAS_PRIORITY else payload)
        elif kind == h2.CONTINUATION:
            if self._block is None or self._block[0] != number:
                raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "a continuation of nothing")
            if not payload and not flags & h2.END_HEADERS:  # they could go on for ever
                raise h2.ConnectionFault(h2.ENHANCE_YOUR_CALM, "a continuation with nothing")
            self._read_block(flags | self._block[1], number, self._block[2] + payload)
        elif kind == h2.WINDOW_UPDATE:
            self._read_window(number, h2.read_number(payload))
        elif kind == h2.SETTINGS:
            self._read_settings(flags, number, payload)
        elif kind == h2.PING:
            if len(payload) != 8 or number:
                raise h2.ConnectionFault(h2.FRAME_SIZE_ERROR, "a ping of eight bytes expected")
            if not flags & h2.ACK:
                self._write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.RST_STREAM:
            self._read_reset(number, payload)
        elif kind == h2.GOAWAY:
            self._leave()
        elif kind == h2.PUSH_PROMISE:
            raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "clients do not push")

    def _read_block(self, flags: int, number: int, block: bytes) -> None:
        if len(block) > _HEADER_BYTES:
            raise h2.ConnectionFault(h2.ENHANCE_YOUR_CALM, "the headers are too long")
        if not flags & h2.END_HEADERS:
            self._block = (number, flags, block)
            return
        self._block = None
        headers = self._headers.read(block)
        ended = bool(flags & h2.END_STREAM)
        known = self._streams.get(number)
        if known is not None:  # trailers
            if not ended or known.ended:
                raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "headers in the middle of a stream")
            self._receive(known, b"", True)
            return
        if number <= self._last_stream or not number % 2:
            raise h2.ConnectionFault(h2.STREAM_CLOSED, "the stream is not open")
        self._last_stream = number
        if self._closing or len(self._streams) >= _MOST_STREAMS:
            self._write(h2.reset(number, h2.REFUSED_STREAM))
            return
        stream = Stream(self, number, self._last)
        self._streams[number] = stream
        stream.listener = self._open_stream(stream, headers)
        if ended:
            self._receive(stream, b"", True)

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        data = h2.without_padding(payload, flags)
        stream = self._streams.get(number)
        if stream is None or stream.ended:
            if number > self._last_stream or not number:
                raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "data on a stream that is not open")
            self._hold(len(payload))
            self._use(len(payload))  # the call is over
            return
        self._hold(len(payload))
        self._use(len(payload) - len(data))
        stream.held += len(data)
        self._receive(stream, data, bool(flags & h2.END_STREAM))

    def _hold(self, size: int) -> None:
        self._held += size
        if self._held + self._used > self._our_window:
            raise h2.ConnectionFault(h2.FLOW_CONTROL_ERROR, "more data than the window allows")

    def _use(self, size: int) -> None:
        self._held -= size
        self._used += size
        if self._used > self._our_window // 2:
            self._write(h2.window_update(0, self._used))
            self._used = 0

    def _receive(self, stream: Stream, data: bytes, ended: bool) -> None:
        stream.last = self._last
        stream.ended = ended
        if stream.listener is not None:
            stream.listener.on_data(data, ended)

    def _read_window(self, number: int, size: int) -> None:
        if size == 0:
            raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "a window update of nothing")
        if number == 0:
            self._window += size
            if self._window > h2.LARGEST_WINDOW:
                raise h2.ConnectionFault(h2.FLOW_CONTROL_ERROR, "the window is too large")
        elif number in self._streams:
            stream = self._streams[number]
            stream.window += size
            if self._first_window + stream.window > h2.LARGEST_WINDOW:
                self._count_reset()
                self._reset(stream, h2.FLOW_CONTROL_ERROR)
        self._opened = True

    def _read_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "settings of a stream")
        if flags & h2.ACK:
            return
        for setting, value in dict(h2.read_settings(payload)).items():
            if setting == h2.INITIAL_WINDOW_SIZE:
                if value > h2.LARGEST_WINDOW:
                    raise h2.ConnectionFault(h2.FLOW_CONTROL_ERROR, "the window is too large")
                self._first_window = value
                self._opened = True
            elif setting == h2.MAX_FRAME_SIZE:
                if not 2**14 <= value <= h2.LARGEST_FRAME:
                    raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "a frame size that is not allowed")
                self._frame_bytes = value
        self._write(h2.frame(h2.SETTINGS, h2.ACK, 0))

    def _read_reset(self, number: int, payload: bytes) -> None:
        h2.read_number(payload)
        if number > self._last_stream or not number:
            raise h2.ConnectionFault(h2.PROTOCOL_ERROR, "a reset of a stream that is not open")
        self._count_reset()
        stream = self._streams.get(number)
        if stream is not None:
            self._give_up(stream)

    def _count_reset(self) -> None:
        self._resets += 1
        if self._resets > _RESETS_PER_SECOND:
            raise h2.ConnectionFault(h2.ENHANCE_YOUR_CALM, "too many calls are given up")

    def _room(self, stream: Stream) -> int:
        """How much data may go out in one frame now."""
        return min(self._frame_bytes, self._window, self._first_window + stream.window)

    def _flow(self, stream: Stream) -> None:
        """Sends what waits, as far as the client takes it."""
        while stream.pending:
            data, is_frame = stream.pending.popleft()
            if is_frame:
                self._write(data)
                self._forget(stream)
                return
            size = min(len(data), self._room(stream))
            if size <= 0:
                stream.pending.appendleft((data, False))
                return
            self._window -= size
            stream.window -= size
            stream.last = self._loop.time()
            self._write(h2.frame(h2.DATA, 0, stream.number, data[:size]))
            if size < len(data):
                stream.pending.appendleft((data[size:], False))
        if stream.listener is not None:
            stream.listener.on_taken()

    def _reset(self, stream: Stream, code: int) -> None:
        self._write(h2.reset(stream.number, code))
        self._give_up(stream)

    def _give_up(self, stream: Stream) -> None:
        """The client gets no answer."""
        listener = stream.listener
        self._forget(stream)
        if listener is not None:
            listener.on_gone()

    def _forget(self, stream: Stream) -> None:
        """The stream is answered; what the client still sends on it is not read."""
        if self._streams.pop(stream.number, None) is None:
            return
        stream.listener = None  # each holds the other
        stream.pending.clear()
        self._use(stream.held)
        if self._closing and not self._streams:
            self.abort()

    def _leave(self) -> None:
        if not self._closing:
            self._closing = True
            self._write(h2.goaway(self._last_stream, h2.NO_ERROR))
        if not self._streams:
            self.abort()

    def _end(self, code: int) -> None:
        self._write(h2.goaway(self._last_stream, code))
        self._closing = True
        self.abort()

    def _write(self, data: bytes | memoryview) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
