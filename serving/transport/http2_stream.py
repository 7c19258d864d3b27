"""One stream of HTTP/2: what it may send, and what waits until the client takes it."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Listener(Protocol):
    """What answers a stream."""

    def on_data(self, data: bytes, ended: bool) -> None:
        """A piece of what the client sends, and whether it was the last."""

    def on_taken(self) -> None:
        """The client has taken all that was sent."""

    def on_closing(self) -> None:
        """The server ends: what came is answered, and nothing more is waited for."""

    def on_gone(self) -> None:
        """The client wants no answer any more."""


class Carrier(Protocol):
    """The connection of a stream."""

    def send(self, stream: Stream, headers: bytes, data: bytes, trailers: bytes) -> None:
        """See `Stream.send`."""

    def credit(self, stream: Stream, size: int) -> None:
        """See `Stream.credit`."""


class Stream:
    """One call.

    Args:
        connection: where it happens.
        number: its number on the connection.
        now: the time.
    """

    __slots__ = (
        "_connection",
        "ended",
        "held",
        "last",
        "listener",
        "may_pause",
        "number",
        "pending",
        "used",
        "window",
    )

    def __init__(self, connection: Carrier, number: int, now: float):
        self._connection = connection
        self.number = number
        self.window = 0
        """How many bytes more the client takes than from a stream that has just begun."""
        self.last = now
        self.listener: Listener | None = None
        self.ended = False
        """Whether the client has sent all."""
        self.may_pause = False
        """Whether the client may take its time to send more."""
        self.held = 0
        self.used = 0
        self.pending: deque[tuple[memoryview, bool]] = deque()
        """Data, and last of all a whole frame: the trailers."""

    def leave(self) -> None:
        """The connection is gone, and whoever answers with it."""
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.on_gone()

    def send(self, headers: bytes, data: bytes, trailers: bytes) -> None:
        """Sends header block, data and trailers, as far as they are not empty; the client reads
        them in that order. Trailers end the stream.
        """
        self._connection.send(self, headers, data, trailers)

    def credit(self, size: int) -> None:
        """Lets the client send so many bytes more, once they were used here."""
        self._connection.credit(self, size)
