"""The sockets on which a server listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_blocks.serving.options import ServerOptions

LARGEST_PORT = 65535


@dataclass(frozen=True)
class Listeners:
    """Bound sockets that do not listen yet, so that nobody waits for models to load.

    Args:
        http: for HTTP.
        grpc: for gRPC, or None.
        admin: for HTTP and for gRPC, where models may be loaded and unloaded; or None.
    """

    http: socket.socket
    grpc: socket.socket | None = None
    admin: tuple[socket.socket, socket.socket] | None = None

    def all(self) -> list[socket.socket]:
        """Every socket."""
        return [sock for sock in (self.http, self.grpc, *(self.admin or ())) if sock is not None]


@contextlib.contextmanager
def open_listeners(options: ServerOptions) -> Iterator[Listeners]:
    """The listeners of a server, closed at the end of the `with`.

    Raises:
        OSError: one of the addresses cannot be listened on.
    """
    with contextlib.ExitStack() as opened:
        http = opened.enter_context(open_listener(options.host, options.port))
        grpc = admin = None
        host = options.admin_host
        if options.grpc_port is not None:
            grpc = opened.enter_context(
                open_listener(options.host, options.grpc_port, "--grpc-port")
            )
        if options.admin_port is not None:
            option = "--admin-port"
            first = opened.enter_context(open_listener(host, options.admin_port, option))
            behind = port_after(options.admin_port, option)
            admin = first, opened.enter_context(open_listener(host, behind, option))
        yield Listeners(http, grpc, admin)


def port_after(port: int, option: str) -> int:
    """The port of gRPC where only that of HTTP is given: the next one, any for any.

    Raises:
        OSError: there is none.
    """
    if port == LARGEST_PORT:
        raise OSError(f"{option} {port} leaves no port for gRPC behind it; choose a smaller one")
    return port and port + 1


def open_listener(host: str, port: int, option: str = "--port") -> socket.socket:
    """A bound socket that does not listen yet.

    Raises:
        OSError: names the address and the option to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is spelled out because asyncio switches Nagle's algorithm off only then; with it
    # each answer waits 40 ms for the client to acknowledge its headers.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            getattr(error, "errno", None),
            f"cannot listen on {host}:{port}: {reason}; choose another {option}",
        ) from None
    return listener


def address(host: str, listener: socket.socket) -> str:
    """host:port of a listener."""
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
