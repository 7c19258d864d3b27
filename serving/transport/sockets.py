"""The sockets on which a server listens."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_blocks.serving.process.config import ServerOptions

LARGEST_PORT = 65535
# No port would help.
_NO_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENODEV, errno.EINVAL})

_NAMES = ("http", "grpc", "admin", "admin_grpc")

_SO_ATTACH_FILTER = 26
# A program for the kernel's packet filter, one instruction each: code, two jumps, a number.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # of them SYN and ACK
        (0x15, 0, 1, 0x02),  # if SYN alone:
        (0x06, 0, 0, 0),  # drop the packet
        (0x06, 0, 0, 0xFFFFFFFF),  # else take all of it
    )
)


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

    def numbers(self) -> dict[str, int]:
        """The file descriptors, by which a child process finds them; see `of_numbers`."""
        admin = self.admin or (None, None)
        named = zip(_NAMES, (self.http, self.grpc, *admin), strict=True)
        return {name: sock.fileno() for name, sock in named if sock is not None}

    @classmethod
    def of_numbers(cls, numbers: Mapping[str, int]) -> Listeners:
        """What a parent process listens on."""
        http, grpc, admin, admin_grpc = (
            socket.socket(fileno=numbers[name]) if name in numbers else None for name in _NAMES
        )
        assert http is not None
        return cls(http, grpc, (admin, admin_grpc) if admin and admin_grpc else None)


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
        if isinstance(error, socket.gaierror) or getattr(error, "errno", None) in _NO_ADDRESS:
            option = option.replace("grpc-", "").replace("port", "host")
        raise OSError(
            getattr(error, "errno", None),
            f"cannot listen on {host}:{port}: {reason}; choose another {option}",
        ) from None
    return listener


def refuse_new(listener: socket.socket) -> None:
    """Has the kernel begin no further connection, and finish those that have begun.

    A socket that is closed cuts off whoever connected since it was last asked for them. Who finds
    this one so asks again after a second, as for a lost packet, and finds it closed by then.
    Elsewhere than on Linux it does nothing.
    """
    if sys.platform == "linux":
        code = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
        program = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(code))
        # A hardened kernel may forbid it; then only those few are cut off.
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def address(host: str, listener: socket.socket) -> str:
    """host:port of a listener."""
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
