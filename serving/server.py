"""A repository behind a socket, from the first request to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Protocol

from keras_blocks.serving import http1
from keras_blocks.serving.access import ApiKeys, tls_context
from keras_blocks.serving.http1 import HttpConnection
from keras_blocks.serving.http2 import Http2Connection
from keras_blocks.serving.jobs import BatchSettings
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.repository import Repository, load_repository
from keras_blocks.serving.rest import Rest
from keras_blocks.serving.rpc import Rpc
from keras_blocks.serving.service import Service

GRACE_SECONDS = 30
_BACKLOG = 2048
_POLL_SECONDS = 0.02


def serve(
    directory: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    grpc_port: int | None = None,
    limits: Limits | None = None,
    batching: BatchSettings | None = None,
    threads: int | None = None,
    watch_seconds: float = 5.0,
    keys: ApiKeys | None = None,
    certificate: tuple[Path, Path] | None = None,
    on_start: Callable[[Repository, str, str | None], None] | None = None,
) -> None:
    """Serves a folder of models until SIGTERM or SIGINT; what is in flight is finished first.

    Args:
        directory: str or path of the folder that holds `<name>/<version>/model.onnx`.
        host: str, the address to listen on.
        port: int, 0 for any free one.
        grpc_port: int, 0 for any free one, None for no gRPC.
        limits: what one request may ask for.
        batching: how requests wait and share runs.
        threads: int, the threads that one run may use; None leaves it to onnxruntime.
        watch_seconds: float, how often the folder is looked at for new and changed models; 0 for
            never.
        keys: who may ask; all may by default.
        certificate: the files of a certificate and of its private key, for TLS by both protocols.
        on_start: called when the server takes requests, with the repository, the url, and where
            gRPC is, as host:port.
    Raises:
        ModelLoadError: nothing can be served from the folder.
        OSError: the address cannot be listened on.
    """
    with contextlib.ExitStack() as listeners:  # first: a taken port shows before the models load
        listener = listeners.enter_context(open_listener(host, port))
        grpc = None
        if grpc_port is not None:
            grpc = listeners.enter_context(open_listener(host, grpc_port, "--grpc-port"))
        repository = load_repository(directory, threads)
        url = f"{'https' if certificate else 'http'}://{_address(host, listener)}"
        grpc_address = None if grpc is None else _address(host, grpc)

        async def run() -> None:
            stopping = asyncio.Event()
            with _signals(stopping):
                service = Service(repository, limits=limits, settings=batching, keys=keys)
                async with serving(service, listener, grpc, watch_seconds, certificate):
                    if on_start is not None:
                        on_start(repository, url, grpc_address)
                    await stopping.wait()

        asyncio.run(run())


@contextlib.asynccontextmanager
async def serving(
    service: Service,
    listener: socket.socket,
    grpc: socket.socket | None = None,
    watch_seconds: float = 0.0,
    certificate: tuple[Path, Path] | None = None,
) -> AsyncIterator[None]:
    """Answers on sockets inside the `async with`; at its end what is in flight is finished.

    Args:
        service: what answers; it is opened and closed here.
        listener: for HTTP, from `open_listener`.
        grpc: for gRPC, the same.
        watch_seconds: how often the folder is looked at; 0 for never.
        certificate: the files of a certificate and of its private key, for TLS.
    """
    loop = asyncio.get_running_loop()
    await service.open()
    rest, rpc = Rest(service), Rpc(service)
    limits = service.limits
    connections: set[Connection] = set()
    tasks = [asyncio.create_task(_sweep(connections, limits))]
    if watch_seconds:
        tasks.append(asyncio.create_task(service.watch(watch_seconds)))
    makers: list[tuple[socket.socket | None, str, Callable[[], asyncio.Protocol]]] = [
        (
            listener,
            "http/1.1",
            lambda: HttpConnection(rest.handle, rest.refuse, limits, connections),
        ),
        (grpc, "h2", lambda: Http2Connection(rpc.open, limits, connections)),
    ]
    servers = [
        await loop.create_server(
            make,
            sock=sock,
            backlog=_BACKLOG,
            ssl=tls_context(*certificate, protocol) if certificate else None,
        )
        for sock, protocol, make in makers
        if sock
    ]
    try:
        yield
    finally:
        for server in servers:
            server.close()
        for connection in list(connections):
            connection.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                while connections:
                    await asyncio.sleep(_POLL_SECONDS)
                await service.close()
        for task in tasks:
            task.cancel()
        for connection in list(connections):
            connection.abort()


@contextlib.contextmanager
def _signals(stopping: asyncio.Event) -> Iterator[None]:
    """SIGTERM and SIGINT ask for the end; a second one is as abrupt as ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(stopping.set)
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Connection(Protocol):
    """A client's connection, by either protocol."""

    def close_when_idle(self) -> None:
        """Ends the connection once what came is answered."""

    def abort(self) -> None:
        """Ends the connection now."""

    def expire(self, now: float) -> None:
        """Ends the connection of a client that has been silent for too long."""


async def _sweep(connections: set[Connection], limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    while True:
        http1.date.refresh()
        now = loop.time()
        for connection in list(connections):
            connection.expire(now)
        await asyncio.sleep(min(1.0, limits.silent_seconds / 4))


def _address(host: str, listener: socket.socket) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def open_listener(host: str, port: int, option: str = "--port") -> socket.socket:
    """A bound socket that does not listen yet, so that nobody waits for models to load."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is spelled out because asyncio switches Nagle's algorithm off only then; with it
    # each answer waits 40 ms for the client to acknowledge its headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"cannot listen on {host}:{port}: {reason}; choose another {option}"
        ) from None
    return listener
