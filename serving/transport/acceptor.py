"""Where clients come in: a listening socket, from the first of them to the last."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_blocks.serving.auth import load_certificate
from keras_blocks.serving.transport.connection import Connection
from keras_blocks.serving.transport.sockets import refuse_new

_BACKLOG = 2048
# Taken in at a time. Each of them leaves a traceback when the process may open no more files.
_AT_ONCE = 16


class Acceptor:
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

    def renew(self, certificate: Path, key: Path) -> None:
        """Shows another certificate to who comes from now on.

        Raises:
            KerasBlocksError: the files hold no certificate and key that belong together.
        """
        if self._tls is not None:
            load_certificate(self._tls, certificate, key)

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
