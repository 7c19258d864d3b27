"""What is seen of each request where somebody looks: by the access log, by traces.

A server without an `Observer` makes no `RequestRecord`, so that nobody pays for what nobody reads.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from keras_blocks.serving.inference.request import QueuedRequest

GONE = 499
"""The HTTP status, as other servers log it, of a request whose client left before its answer."""

_LONGEST_ID = 200
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

_log = logging.getLogger("keras_blocks.serving")


@dataclass(eq=False, slots=True)
class RequestRecord:
    """One request, from its last byte to its answer.

    Args:
        observer: who is told of its end.
        protocol: "http" or "grpc".
        call: what was called: method and path.
        headers: name in lower case -> value.
    """

    observer: Observer
    protocol: str
    call: str
    headers: Mapping[bytes, bytes]
    id: str = ""
    trace_id: str = ""
    infers: bool = False
    model: str = ""
    version: str = ""
    job: QueuedRequest | None = None
    status: int = 0
    began: float = field(default_factory=time.monotonic)
    ended: float = 0.0

    def asks(self, model: str, version: object = None, own_id: str | None = None) -> None:
        """It is an infer request: for this model, and with an `id` of its own perhaps."""
        self.infers = True
        self.model = model[:_LONGEST_ID]
        self.version = str(version or "")[:_LONGEST_ID]
        self.id = (own_id or "")[:_LONGEST_ID]

    def end(self, status: int) -> None:
        """It is answered, with a status of HTTP or a code of gRPC."""
        if self.ended:
            return
        self.ended = time.monotonic()
        self.status = status
        self.id = self.id or request_id(self.headers) or os.urandom(16).hex()
        self.trace_id = trace_id(self.headers)
        self.observer.record(self)
        self.job = None  # whose outcome holds the request, which holds this


class Observer:
    """Passes on what was seen.

    Args:
        recorders: called with each request when it is answered.
        close: called once, when no more requests come.
    """

    def __init__(
        self,
        recorders: Sequence[Callable[[RequestRecord], None]],
        close: Callable[[], None] | None = None,
    ):
        self._recorders = recorders
        self._close = close

    def request(self, protocol: str, call: str, headers: Mapping[bytes, bytes]) -> RequestRecord:
        """A request that came whole."""
        return RequestRecord(self, protocol, call, headers)

    def record(self, seen: RequestRecord) -> None:
        """Tells all of a request that was answered; none of them can spoil the answer."""
        for recorder in self._recorders:
            try:
                recorder(seen)
            except Exception:
                _log.exception("a request could not be recorded")

    def close(self) -> None:
        """Sends off what is still kept."""
        if self._close is not None:
            self._close()


def request_id(headers: Mapping[bytes, bytes], own_id: str | None = None) -> str:
    """What a request is called: its own `id`, its x-request-id, or the trace it is part of."""
    sent = own_id or headers.get(b"x-request-id", b"").decode("latin-1").strip()
    return sent[:_LONGEST_ID] or trace_id(headers)


def trace_id(headers: Mapping[bytes, bytes]) -> str:
    """The trace of a W3C traceparent; empty where there is none."""
    match = _TRACEPARENT.match(headers.get(b"traceparent", b"").strip())
    return match.group(1).decode() if match else ""
