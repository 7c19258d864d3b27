"""HTTP/1.1 on asyncio's transports: bytes to requests, answers to bytes.

A request is handed on in the same turn of the event loop in which its last byte came, without a
task or a future, so that all requests of a turn can share one run of a model.
"""

from __future__ import annotations

import asyncio
import email.utils
import http
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httptools

from keras_blocks.serving.errors import RequestError
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.status import without_frames
from keras_blocks.serving.telemetry.request_record import Observer
from keras_blocks.serving.transport.compression import too_large
from keras_blocks.serving.transport.connection import FIRST_SECONDS, WriteStallDetector, read_little
from keras_blocks.serving.transport.exchange import HttpExchange
from keras_blocks.serving.transport.head_cache import Head, HeadCache

# A refused body is read to its end, up to this much, or the client might not see the refusal.
_DRAINED_BYTES = 64 * 2**20
_HEADER_BYTES = 64 * 2**10
_MOST_PIPELINED = 16
_CONNECT = b"CONNECT"


Handler = Callable[[HttpExchange], None]
Refusal = Callable[[HttpExchange, Exception], None]


class HttpConnection(asyncio.Protocol):
    """One client.

    Args:
        handler: answers an exchange, now or later.
        refuse: answers an exchange that was no whole request, or was refused by its head.
        screen: raises what is wrong with a method, a target and its headers.
        limits: what one request may ask for.
        connections: where this one is listed while it is open.
        heads: those that were read on this and on other connections.
        observer: who watches the requests, or None.
    """

    def __init__(
        self,
        handler: Handler,
        refuse: Refusal,
        screen: Callable[[bytes, bytes, Mapping[bytes, bytes]], None],
        limits: Limits,
        connections: set[Any],
        heads: HeadCache,
        observer: Observer | None = None,
    ):
        self._handler = handler
        self._refuse = refuse
        self._screen = screen
        self._limits = limits
        self._connections = connections
        self._heads = heads
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._unread = WriteStallDetector()
        self._current: HttpExchange | None = None
        self._backlog: deque[HttpExchange | tuple[HttpExchange, Exception]] = deque()
        self._writable = True
        self._closing = False
        self._broken = False
        self._last = self._loop.time()
        self._asked = False
        self._reading: str | None = None  # "head" or "body" within a request
        self._begun = 0.0
        self._whole = 0  # requests that ended in the bytes that came last
        self._stays = True
        self._is_old = False  # HTTP/1.0
        self._refusal: Exception | None = None
        self._body: bytes | bytearray = b""
        self._size = 0
        self._reset()

    # asyncio calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connects."""
        self._transport = transport  # type: ignore[assignment]
        read_little(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, and what it asked for is no longer wanted."""
        self._connections.discard(self)
        self._closing = True
        self._backlog.clear()
        if self._current is not None:
            self._current.leave()
        self._current = None
        self._reset()
        # Both hold this, and so what came last.
        self._transport = None
        self._parser = None

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        self._last = self._loop.time()
        if self._broken or self._parser is None:
            return
        begins = self._reading is None and self._stays
        known = self._heads.find(data) if begins else None
        if known is not None:
            self._on_known(*known)
            return
        self._between += len(data)
        self._whole = 0
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            cause = error.__context__ if error.__context__ is not None else error
            if not isinstance(cause, RequestError):
                cause = RequestError(400, f"this is no HTTP request: {error}", closes=True)
            self._break(without_frames(cause))
        if self._reading is not None and self._between > _HEADER_BYTES:
            self._break(RequestError(431, "the headers are too long", closes=True))
        elif begins and self._whole == 1 and self._reading is None and not self._broken:
            self._remember(data)

    def _feed(self, data: bytes) -> None:
        """Has bytes parsed.

        Offers to go on with another protocol are passed over (RFC 9110, section 7.8). The parser
        takes what follows for that protocol: another one reads on, from a head without the offer.
        """
        while self._parser is not None:
            try:
                return self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                if self._parser.get_method() == _CONNECT:
                    self._broken = True  # it is answered, and the connection closed behind it
                    return
                data = self._head_without_offer() + data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def _head_without_offer(self) -> bytes:
        assert self._parser is not None
        version = self._parser.get_http_version().encode()
        kept = {n: v for n, v in self._headers.items() if n not in (b"upgrade", b"expect")}
        options = [o.strip() for o in kept.pop(b"connection", b"").split(b",")]
        kept[b"connection"] = b", ".join(o for o in options if o.lower() != b"upgrade")
        lines = [self._parser.get_method() + b" " + self._target + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in kept.items()]
        return b"\r\n".join([*lines, b"", b""])

    def pause_writing(self) -> None:
        """The client does not read its answers: it gets no further ones."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self._next()

    # httptools calls these

    def on_message_begin(self) -> None:
        """A request begins."""
        self._reset()
        self._asked = True
        self._reading = "head"
        self._begun = self._last

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        if self._reading == "head":  # those behind a body in chunks say nothing of it
            name = name.lower()
            before = self._headers.get(name)
            # One that comes twice is a list (RFC 9110, section 5.3); none of ours may be one.
            self._headers[name] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        """The body comes next, if it may."""
        assert self._parser is not None
        self._reading = "body"
        self._between = 0
        self._is_old = self._parser.get_http_version() == "1.0"
        declared = int(self._headers.get(b"content-length") or 0)  # the parser has checked it
        waits = self._headers.get(b"expect", b"").lower() == b"100-continue"
        if declared > self._limits.body_bytes:
            self._too_large(closes=waits or declared > self._limits.body_bytes + _DRAINED_BYTES)
        elif waits and not self._is_old and self._transport is not None and self._current is None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._refusal is None:  # else none of its body is kept
            method = self._parser.get_method()
            self._refusal = self._screened(method, self._target, self._headers)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._between = 0
        self._size += len(body)
        if self._size > self._limits.body_bytes:
            self._too_large(closes=self._size > self._limits.body_bytes + _DRAINED_BYTES)
        elif self._refusal is None:
            if not self._body:
                self._body = body
                return
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)  # chunks may be of one byte each
            self._body += body

    def on_message_complete(self) -> None:
        """The request is whole."""
        assert self._parser is not None
        upgrades, method = self._parser.should_upgrade(), self._parser.get_method()
        if upgrades and method != _CONNECT:
            return  # its body comes yet
        self._reading = None
        self._whole += 1
        self._stays = self._parser.should_keep_alive() and not upgrades
        body = bytes(self._body)
        exchange = self._exchange(method, self._target, self._headers, body, self._stays)
        self._enqueue(exchange, self._refusal)

    def _on_known(self, head: Head, body: bytes) -> None:
        """A whole request with a head that was read before."""
        self._asked = True
        refusal = self._screened(head.method, head.target, head.headers)
        exchange = self._exchange(head.method, head.target, head.headers, body, True)
        self._enqueue(exchange, refusal)

    def _remember(self, data: bytes) -> None:
        """The request that was all of `data`, for the next one with such a head."""
        said = self._headers
        plain = not (b"expect" in said or b"transfer-encoding" in said or self._is_old)
        if plain and self._stays and self._refusal is None and self._parser is not None:
            head = Head(self._parser.get_method(), self._target, said, self._size)
            self._heads.add(data, head)

    def _screened(
        self, method: bytes, target: bytes, headers: Mapping[bytes, bytes]
    ) -> Exception | None:
        try:
            self._screen(method, target, headers)
        except Exception as error:
            return without_frames(error)
        return None

    def _enqueue(self, exchange: HttpExchange, refusal: Exception | None) -> None:
        self._backlog.append(exchange if refusal is None else (exchange, refusal))
        if len(self._backlog) > _MOST_PIPELINED and self._transport is not None:
            self._transport.pause_reading()
        self._next()

    # The server calls these

    def send(
        self,
        exchange: HttpExchange,
        status: int,
        body: bytes | Iterable[bytes],
        media_type: str,
        headers: Mapping[str, str] | None,
        stays: bool,
    ) -> None:
        """Writes an answer, then turns to the next request."""
        transport = self._transport
        if exchange is not self._current or transport is None or transport.is_closing():
            return
        content = body if isinstance(body, bytes) else b"".join(body)
        stays = stays and not self._closing
        if stays and self._is_old:  # HTTP/1.0 closes where nothing else is said
            headers = {**(headers or {}), "connection": "keep-alive"}
        head = _head(status, media_type, len(content), headers, stays)
        transport.write(head if exchange.method == b"HEAD" else head + content)
        self._last = self._loop.time()
        self._current = None
        if not stays:
            self._closing = True
            transport.close()
        elif self._backlog:
            self._loop.call_soon(self._next)

    def announce_end(self) -> None:
        """Tells the client to send no more; what it sends all the same is answered."""
        self._closing = True

    def close_when_idle(self) -> None:
        """Ends the connection once what came is answered."""
        self._closing = True
        idle = self._current is None and not self._backlog and self._reading is None
        if idle and (self._asked or self._loop.time() - self._last > FIRST_SECONDS):
            self.abort()

    def abort(self) -> None:
        """Ends the connection when the client has taken what was written."""
        if self._transport is not None:
            self._transport.close()

    def expire(self, now: float) -> None:
        """Ends the connection of a client that has been silent for too long."""
        silent = self._limits.silent_seconds
        if self._unread.drop(self._transport, now, silent):
            return
        if self._reading is not None:
            since = self._begun if self._reading == "head" else self._last
            if now - since > silent and self._current is None:
                what = f"no more of the {self._reading} came within {silent:g} seconds"
                self._break(RequestError(408, what, closes=True))
        elif self._current is None and now - self._last > self._limits.idle_seconds:
            self.abort()

    def _reset(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body = b""
        self._size = 0
        self._between = 0
        self._refusal = None

    def _exchange(
        self,
        method: bytes,
        target: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        stays: bool,
    ) -> HttpExchange:
        seen = None
        if self._observer is not None:
            seen = self._observer.request(
                "http", (method + b" " + target).decode("latin-1"), headers
            )
        return HttpExchange(method, target, headers, body, self, stays, seen)

    def _too_large(self, closes: bool) -> None:
        self._refusal = refusal = too_large(self._limits.body_bytes, closes)
        self._body = b""
        if closes:
            raise refusal

    def _break(self, error: RequestError) -> None:
        """Answers what cannot be read any further, behind the answers before it."""
        if not self._broken:
            if self._reading is None:
                self._reset()  # of the request before
            self._broken = True
            self._reading = None
            method = self._parser.get_method() if self._target and self._parser else b""
            exchange = self._exchange(method, self._target, self._headers, b"", False)
            self._backlog.append((exchange, error))
            self._next()

    def _next(self) -> None:
        if self._current is not None or not self._backlog or not self._writable:
            return
        entry = self._backlog.popleft()
        if len(self._backlog) == _MOST_PIPELINED and self._transport is not None:
            self._transport.resume_reading()
        if isinstance(entry, HttpExchange):
            self._current = entry
            self._handler(entry)
        else:
            self._current, error = entry
            self._refuse(self._current, error)


def _head(
    status: int, media_type: str, length: int, headers: Mapping[str, str] | None, stays: bool
) -> bytes:
    first = _FIRST_LINES[status]
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) if headers else ""
    if not stays:
        more += "connection: close\r\n"
    return (
        f"{first}content-type: {media_type}\r\ncontent-length: {length}\r\n{date.line}{more}\r\n"
    ).encode("latin-1")


class _Date:
    """The date header, made once a second."""

    line = ""

    def refresh(self) -> None:
        """Takes the present second."""
        self.line = f"date: {email.utils.formatdate(usegmt=True)}\r\n"


date = _Date()
_FIRST_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n" for s in http.HTTPStatus}
