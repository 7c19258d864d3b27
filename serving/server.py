"""A repository behind a socket, from the first request to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

from keras_blocks.serving import http1
from keras_blocks.serving.access import OPEN, ModelControl, tls_context
from keras_blocks.serving.http1 import HttpConnection
from keras_blocks.serving.http2 import Http2Connection
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.listeners import Listeners, open_listeners
from keras_blocks.serving.options import ServerOptions
from keras_blocks.serving.repository import load_repository
from keras_blocks.serving.rest import Rest
from keras_blocks.serving.rpc import Rpc
from keras_blocks.serving.service import Service
from keras_blocks.serving.signals import stop_signals

_BACKLOG = 2048
_POLL_SECONDS = 0.02
# A request on its way when its client is told to send no more arrives within this.
_LINGER_SECONDS = 0.1

_log = logging.getLogger("keras_blocks.serving")


def serve_alone(options: ServerOptions) -> None:
    """Answers in this process until SIGTERM or SIGINT."""
    with open_listeners(options) as listeners:  # first: a taken port shows before the models load
        repository = load_repository(options.directory, options.threads, options.only)

        async def run() -> None:
            stopping = asyncio.Event()
            service = Service(
                repository, limits=options.limits, settings=options.batching, keys=options.keys
            )
            with stop_signals(stopping):
                async with serving_as(options, service, listeners, options.looks_every):
                    options.announce(repository, listeners)
                    await stopping.wait()

        asyncio.run(run())


def serving_as(
    options: ServerOptions,
    service: Service,
    listeners: Listeners,
    watch_seconds: float = 0.0,
    shared: bool = False,
) -> contextlib.AbstractAsyncContextManager[None]:
    """`serving` with the options of a server.

    Args:
        options: how the server is run.
        service: what answers.
        listeners: where.
        watch_seconds: how often the folder is looked at; 0 for never.
        shared: whether other processes listen on the same sockets.
    """
    return serving(
        service,
        listeners.http,
        listeners.grpc,
        watch_seconds,
        options.certificate,
        admin=listeners.admin,
        control=options.control,
        exit_seconds=options.exit_timeout_seconds,
        shared=shared,
    )


@contextlib.asynccontextmanager
async def serving(
    service: Service,
    listener: socket.socket,
    grpc: socket.socket | None = None,
    watch_seconds: float = 0.0,
    certificate: tuple[Path, Path] | None = None,
    *,
    admin: tuple[socket.socket, socket.socket] | None = None,
    control: ModelControl = OPEN,
    exit_seconds: float = 30.0,
    shared: bool = False,
) -> AsyncIterator[None]:
    """Answers on sockets inside the `async with`; at its end what is in flight is finished.

    Args:
        service: what answers; it is opened and closed here.
        listener: for HTTP, from `open_listener`.
        grpc: for gRPC, the same.
        watch_seconds: how often the folder is looked at; 0 for never.
        certificate: the files of a certificate and of its private key, for TLS.
        admin: for HTTP and for gRPC, where models may always be loaded and unloaded.
        control: whether they may be on the other sockets.
        exit_seconds: how long what is in flight may take at the end.
        shared: whether other processes listen on the same sockets.
    """
    await service.open()
    limits = service.limits
    connections: set[Connection] = set()
    tasks = [asyncio.create_task(_sweep(connections, limits))]
    if watch_seconds:
        tasks.append(asyncio.create_task(service.watch(watch_seconds)))
    servers = []
    for http, grpc_too, allowed in ((listener, grpc, control), (*(admin or (None, None)), OPEN)):
        rest, rpc = Rest(service, allowed), Rpc(service, allowed)
        makers: dict[str, tuple[socket.socket | None, Callable[[], asyncio.Protocol]]] = {
            "http/1.1": (
                http,
                functools.partial(HttpConnection, rest.handle, rest.refuse, limits, connections),
            ),
            "h2": (grpc_too, functools.partial(Http2Connection, rpc.open, limits, connections)),
        }
        for protocol, (sock, make) in makers.items():
            if sock is not None:
                tls = tls_context(*certificate, protocol) if certificate else None
                servers.append(await _listen(sock, make, tls, shared))
    try:
        yield
    finally:
        for server in servers:
            server.close()
        await _drain(service, connections, exit_seconds)
        for task in tasks:
            task.cancel()


async def _listen(
    sock: socket.socket,
    make: Callable[[], asyncio.Protocol],
    tls: ssl.SSLContext | None,
    shared: bool,
) -> asyncio.Server:
    # asyncio takes as many connections at a time as may wait. Of several processes the first to
    # wake would take all those that came together; one by one, each goes to whoever is free.
    at_once = 1 if shared else _BACKLOG
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, sock=sock, backlog=at_once, ssl=tls)
    sock.listen(_BACKLOG)
    return server


async def _drain(service: Service, connections: set[Connection], seconds: float) -> None:
    """Answers what came, and what comes before the clients can know of the end."""
    for connection in list(connections):
        connection.announce_end()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(_LINGER_SECONDS)
            for connection in list(connections):
                connection.close_when_idle()
            while connections:
                await asyncio.sleep(_POLL_SECONDS)
            await service.close()
    except TimeoutError:
        _log.warning("%d connections were cut off after %g seconds", len(connections), seconds)
        service.interrupt()
    for connection in list(connections):
        connection.abort()


class Connection(Protocol):
    """A client's connection, by either protocol."""

    def announce_end(self) -> None:
        """Tells the client to send no more; what it sends all the same is answered."""

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
