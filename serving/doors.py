"""Where clients come in: a listening socket, from the first of them to the last."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from keras_blocks.serving.listeners import refuse_new

# A client that has just connected sends its first request within this.
FIRST_SECONDS = 1.0
_BACKLOG = 2048
_READ_BYTES = 2**16
# Taken in at a time. Each of them leaves a traceback when the process may open no more files.
_AT_ONCE = 16


class Connection(Protocol):
    """A client's connection, by either protocol."""

    def announce_end(self) -> None:
        """Tells the client to send no more; what it sends all the same is answered."""

    def close_when_idle(self) -> None:
        """Ends the connection once what came is answered."""

    def abort(self) -> None:
        """Ends the connection when the client has taken what was written."""

    def expire(self, now: float) -> None:
        """Ends the connection of a client that has been silent for too long."""


def read_little(transport: asyncio.BaseTransport) -> None:
    """Lets a transport take in at most 64 KiB at a time.

    asyncio makes an object of the most it would take, 256 KiB, for each read: that costs several
    times what the read of a small request does.
    """
    if hasattr(transport, "max_size"):  # those of sockets have it
        transport.max_size = _READ_BYTES


class Unread:
    """What was written and the client has not taken."""

    def __init__(self) -> None:
        self._size = 0
        self._since = 0.0

    def drop(self, transport: asyncio.Transport | None, now: float, seconds: float) -> bool:
        """Cuts off a client that has taken none of it for so long; asked again and again."""
        size = 0 if transport is None else transport.get_write_buffer_size()
        if not size or size != self._size:
            self._size, self._since = size, now
        if transport is None or now - self._since <= seconds:
            return False
        transport.abort()
        return True


class Door:
    """A listening socket and what is made for each client.

    Args:
        sock: a bound socket that does not listen yet; it is closed with the door.
        make: makes what answers a client.
        tls: None for none.
    """

    def __init__(
        self, sock: socket.socket, make: Callable[[], Connection], tls: ssl.SSLContext | None
    ):
        self._sock = sock
        self._make = make
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._shut = False

    async def open(self, shared: bool) -> None:
        """Lets clients in; `shared` says whether other processes listen on the same socket."""
        # Of several processes the first to wake would take all those that came together; one by
        # one, each goes to whoever is free.
        at_once = 1 if shared else _AT_ONCE
        self._server = await asyncio.get_running_loop().create_server(
            self._enter, sock=self._sock, backlog=at_once, ssl=self._tls
        )
        self._sock.listen(_BACKLOG)

    def shut(self) -> None:
        """Nobody else may come; who stands before the door is still let in."""
        self._shut = True
        refuse_new(self._sock)

    def close(self) -> list[asyncio.Task[Any]]:
        """Closes the socket behind those who stand before it: when the last process does, the
        kernel cuts off whom nobody took in.

        Returns:
            What lets them in.
        """
        waiting: list[socket.socket] = []
        with contextlib.suppress(OSError):  # there are no more of them, or no more can be had
            while len(waiting) < _BACKLOG:
                waiting.append(self._sock.accept()[0])
        if self._server is not None:
            self._server.close()
        loop = asyncio.get_running_loop()
        return [
            loop.create_task(loop.connect_accepted_socket(self._enter, sock, ssl=self._tls))
            for sock in waiting
        ]

    def _enter(self) -> Any:
        connection = self._make()
        if self._shut:
            connection.announce_end()
        return connection
