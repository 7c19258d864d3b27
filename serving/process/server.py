"""A repository behind a socket, from the first request to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from keras_blocks.errors import KerasBlocksError
from keras_blocks.runtime.malloc import give_back_large_blocks
from keras_blocks.serving.auth import OPEN, ModelControl, tls_context
from keras_blocks.serving.grpc.servicer import Rpc
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.origins import NO_OTHERS, Origins
from keras_blocks.serving.process.config import ServerOptions
from keras_blocks.serving.process.signals import exit_now, reload_signal, stop_signals
from keras_blocks.serving.repository.repository import load_repository
from keras_blocks.serving.rest.endpoints import Rest
from keras_blocks.serving.telemetry.logs import log_request
from keras_blocks.serving.telemetry.request_record import Observer, RequestRecord
from keras_blocks.serving.telemetry.tracing import open_traces, tracing_wanted
from keras_blocks.serving.transport import http1
from keras_blocks.serving.transport.acceptor import Acceptor
from keras_blocks.serving.transport.connection import Connection
from keras_blocks.serving.transport.head_cache import HeadCache
from keras_blocks.serving.transport.http1 import HttpConnection
from keras_blocks.serving.transport.http2 import Http2Connection
from keras_blocks.serving.transport.sockets import Listeners, open_listeners

_POLL_SECONDS = 0.02
# A request on its way when its client is told to send no more arrives within this.
_LINGER_SECONDS = 0.1

_log = logging.getLogger("keras_blocks.serving")


def serve_alone(options: ServerOptions) -> None:
    """Answers in this process until SIGTERM or SIGINT."""
    give_back_large_blocks()
    with open_listeners(options) as listeners:  # first: a taken port shows before the models load

        async def run() -> None:
            stopping = asyncio.Event()
            # The service alone holds the models: those that are unloaded are freed.
            service = Service(
                options.empty_repository(),
                limits=options.limits,
                settings=options.batching,
                keys=options.keys,
                to_fill=True,
            )
            with stop_signals(stopping):
                async with serving_as(options, service, listeners, options.poll_seconds):
                    await _start(options, service, listeners, stopping)
                    await stopping.wait()
            if service.loading:
                exit_now()

        asyncio.run(run())


async def _start(
    options: ServerOptions, service: Service, listeners: Listeners, stopping: asyncio.Event
) -> None:
    """Loads the models while it is told that the server is live, unless its end is asked for."""
    load = functools.partial(
        load_repository, options.directory, options.threads, options.only, options.allow_links
    )
    loads, stops = (asyncio.ensure_future(w) for w in (service.fill(load), stopping.wait()))
    await asyncio.wait((loads, stops), return_when=asyncio.FIRST_COMPLETED)
    stops.cancel()
    if not loads.done():
        loads.cancel()
        return
    await loads
    service.started = True
    options.announce(service.repository, listeners)


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
        observer=_observer(options),
        origins=options.origins,
        base_path=options.base_path,
        drain_seconds=options.drain_seconds,
        client_ca=options.client_ca,
    )


def _observer(options: ServerOptions) -> Observer | None:
    recorders: list[Callable[[RequestRecord], None]] = []
    close = None
    if tracing_wanted():
        traces, close = open_traces()
        recorders.append(traces)  # before the log, which names the trace
    if options.access_log:
        recorders.append(log_request)
    return Observer(recorders, close) if recorders else None


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
    observer: Observer | None = None,
    origins: Origins = NO_OTHERS,
    base_path: str = "",
    drain_seconds: float = 0.0,
    client_ca: Path | None = None,
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
        observer: who watches the requests, or None.
        origins: which web pages of other origins may ask.
        base_path: what stands before each path over HTTP.
        drain_seconds: how long requests are taken at the end, while the server is not ready.
        client_ca: the file of the authorities whose certificates clients must show, or None.
    """
    await service.open()
    limits = service.limits
    connections: set[Connection] = set()
    tasks = [asyncio.create_task(_sweep(connections, limits))]
    if watch_seconds:
        tasks.append(asyncio.create_task(service.watch(watch_seconds)))
    doors = []
    for http, grpc_too, allowed in ((listener, grpc, control), (*(admin or (None, None)), OPEN)):
        rest = Rest(service, allowed, origins, base_path)
        rpc = Rpc(service, allowed, observer)
        makers: dict[str, tuple[socket.socket | None, Callable[[], Connection]]] = {
            "http/1.1": (
                http,
                functools.partial(
                    HttpConnection,
                    rest.handle,
                    rest.refuse,
                    rest.authorize,
                    limits,
                    connections,
                    HeadCache(),
                    observer,
                ),
            ),
            "h2": (grpc_too, functools.partial(Http2Connection, rpc.open, limits, connections)),
        }
        for protocol, (sock, make) in makers.items():
            if sock is not None:
                tls = tls_context(*certificate, protocol, client_ca) if certificate else None
                doors.append(Acceptor(sock, make, tls))
                await doors[-1].open(shared)
    try:
        with reload_signal(functools.partial(_reload, doors, certificate, service)):
            yield
    finally:
        if service.started and drain_seconds:
            service.draining = True
            await asyncio.sleep(drain_seconds)
        await _drain(service, doors, connections, exit_seconds)
        for task in tasks:
            task.cancel()
        if observer is not None:
            await asyncio.to_thread(observer.close)


def _reload(doors: list[Acceptor], certificate: tuple[Path, Path] | None, service: Service) -> None:
    """Reads certificates and keys again; those that cannot be read leave the old ones in use."""
    try:
        service.keys.reload()
        for door in doors:
            if certificate is not None:
                door.renew(*certificate)
    except (KerasBlocksError, OSError) as error:
        _log.error("what was there before goes on: %s", error)
    else:
        _log.info("certificates and API keys were read again")


async def _drain(
    service: Service, doors: list[Acceptor], connections: set[Connection], seconds: float
) -> None:
    """Answers what came, and what comes before the clients can know of the end."""
    for door in doors:
        door.shut()
    for connection in list(connections):
        connection.announce_end()
    await asyncio.sleep(min(_LINGER_SECONDS, seconds))
    entering = [task for door in doors for task in door.close()]
    try:
        async with asyncio.timeout(seconds):
            await asyncio.sleep(_POLL_SECONDS)  # until the last of them are in
            while connections:
                for connection in list(connections):
                    connection.close_when_idle()
                await asyncio.sleep(_POLL_SECONDS)
            await service.close()
    except TimeoutError:
        _log.warning("%d connections were cut off after %g seconds", len(connections), seconds)
        service.interrupt()
    for connection in list(connections):
        connection.abort()
    for task in entering:
        task.cancel()


async def _sweep(connections: set[Connection], limits: Limits) -> None:
    loop = asyncio.get_running_loop()
    while True:
        http1.date.refresh()
        now = loop.time()
        for connection in list(connections):
            connection.expire(now)
        await asyncio.sleep(min(1.0, limits.silent_seconds / 4))
