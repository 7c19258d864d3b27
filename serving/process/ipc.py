"""Calls between two processes over a socket, in both directions at once."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from keras_blocks.errors import KerasBlocksError

_SIZE = struct.Struct(">Q")

Handler = Callable[..., Awaitable[Any]]


class GoneError(KerasBlocksError):
    """The process at the other end is no more."""


class RpcChannel:
    """One end of a connection between a parent and its worker. Both run the same code, and nobody
    else can reach the socket: what is sent is pickled.

    Args:
        handlers: name -> what answers calls of that name.
    """

    def __init__(self, handlers: dict[str, Handler]):
        self._handlers = handlers
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self.closed = asyncio.Event()

    async def open(self, end: socket.socket) -> None:
        """Takes an end of a socket pair into service."""
        reader, self._writer = await asyncio.open_unix_connection(sock=end)
        self._start(self._listen(reader))

    async def call(self, name: str, *arguments: Any) -> Any:
        """Calls a handler of the other process; what it raises is raised here.

        Raises:
            GoneError: the other process ended before its answer.
        """
        if self.closed.is_set():
            raise GoneError("the process at the other end is gone")
        future = asyncio.get_running_loop().create_future()
        number = id(future)
        self._answers[number] = future
        self._send((number, name, arguments))
        try:
            return await future
        finally:
            self._answers.pop(number, None)

    def close(self) -> None:
        """Ends the connection."""
        if self._writer is not None:
            self._writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                (size,) = _SIZE.unpack(await reader.readexactly(_SIZE.size))
                number, name, content = pickle.loads(await reader.readexactly(size))
                if name:
                    self._start(self._answer(number, name, content))
                elif number in self._answers and not self._answers[number].done():
                    _settle(self._answers[number], content)
        self.closed.set()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(GoneError("the process at the other end is gone"))

    async def _answer(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        try:
            result = await self._handlers[name](*arguments)
        except Exception as error:
            result = _portable(error)
        self._send((number, "", result))

    def _send(self, message: tuple[int, str, Any]) -> None:
        if self._writer is not None and not self.closed.is_set():
            data = pickle.dumps(message)
            self._writer.write(_SIZE.pack(len(data)) + data)

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _settle(future: asyncio.Future[Any], content: Any) -> None:
    if isinstance(content, Exception):
        future.set_exception(content)
    else:
        future.set_result(content)


def _portable(error: Exception) -> Exception:
    """The error as the other process can read it."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its class does when it is copied
        return KerasBlocksError(str(error))
