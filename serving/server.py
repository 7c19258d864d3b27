"""A repository behind a socket, from the first request to an orderly end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable

import uvicorn

from keras_blocks.serving.app import create_app
from keras_blocks.serving.limits import Limits
from keras_blocks.serving.repository import Repository, load_repository

GRACE_SECONDS = 30


def serve(
    directory: str | os.PathLike[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    limits: Limits | None = None,
    threads: int | None = None,
    on_start: Callable[[Repository, str], None] | None = None,
) -> None:
    """Serves a folder of models until SIGTERM or SIGINT; what is in flight is finished first.

    Args:
        directory: str or path of the folder that holds `<name>/<version>/model.onnx`.
        host: str, the address to listen on.
        port: int, 0 for any free one.
        limits: what one request may ask for.
        threads: int, the threads that one run may use; None leaves it to onnxruntime.
        on_start: called with the repository and the server's url when it takes requests.
    Raises:
        ModelLoadError: nothing can be served from the folder.
        OSError: the address cannot be listened on.
    """
    listener = open_listener(host, port)  # first: a taken port shows before the models load
    with listener:
        repository = load_repository(directory, threads)
        config = uvicorn.Config(
            create_app(repository, limits=limits),
            log_level="error",  # a client's nonsense is answered, not logged
            ws="none",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        bound_port = listener.getsockname()[1]
        url = f"http://{f'[{host}]' if ':' in host else host}:{bound_port}"
        _run(_Server(config, lambda: on_start and on_start(repository, url)), listener)


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn raises the signals again once it is done; then there is nothing left to stop.
    in_main_thread = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, stop) if in_main_thread else None
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        if in_main_thread:
            signal.signal(signal.SIGTERM, previous)


def open_listener(host: str, port: int) -> socket.socket:
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
            error.errno, f"cannot listen on {host}:{port}: {reason}; choose another --port"
        ) from None
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], object]):
        super().__init__(config)
        self._announce = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()
