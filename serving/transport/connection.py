"""What every connection of a listener has, whichever protocol it speaks."""

from __future__ import annotations

import asyncio
from typing import Protocol

# A client that has just connected sends its first request within this.
FIRST_SECONDS = 1.0
_READ_BYTES = 2**16


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


class WriteStallDetector:
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
