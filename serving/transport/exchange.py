"""One HTTP request, and the place for its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from keras_blocks.serving.protocol.names import JSON
from keras_blocks.serving.telemetry.request_record import GONE, RequestRecord

if TYPE_CHECKING:
    from keras_blocks.serving.transport.http1 import HttpConnection

_REQUEST_ID = b"x-request-id"


class HttpExchange:
    """One request, and the place for its answer.

    Args:
        method: "GET", "POST", ...
        target: the path with its query, as it was sent.
        headers: name in lower case -> value.
        body: the whole body.
        connection: where its answer goes.
        stays: bool, whether the client may send more requests.
        seen: who watches it, or None.
    """

    __slots__ = (
        "_answered",
        "_connection",
        "_stays",
        "body",
        "headers",
        "method",
        "more",
        "on_gone",
        "seen",
        "target",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: Mapping[bytes, bytes],
        body: bytes,
        connection: HttpConnection,
        stays: bool,
        seen: RequestRecord | None = None,
    ):
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.seen = seen
        self.more: Mapping[str, str] | None = None
        """Headers of whatever the answer is."""
        self.on_gone: Callable[[], object] | None = None
        """Called if the client goes away before its answer."""
        self._connection = connection
        self._stays = stays
        self._answered = False

    def header(self, name: bytes) -> str:
        """A header's value, empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1").strip()

    def respond(
        self,
        status: int,
        body: bytes | Iterable[bytes],
        media_type: str = JSON,
        headers: Mapping[str, str] | None = None,
        *,
        closes: bool = False,
    ) -> None:
        """Sends the answer; a body of several pieces is given as a list."""
        if self._answered:
            return
        self._answered = True
        self.on_gone = None  # it holds the request, which holds this
        if self.seen is not None:
            self.seen.end(status)
        if self.more is not None:
            headers = {**self.more, **(headers or {})}
        sent = self.headers.get(_REQUEST_ID)
        if sent is not None:
            headers = {**(headers or {}), "x-request-id": sent.decode("latin-1")}
        self._connection.send(self, status, body, media_type, headers, self._stays and not closes)

    def leave(self) -> None:
        """The client went away before its answer."""
        if self.seen is not None:
            self.seen.end(GONE)
        gone, self.on_gone = self.on_gone, None
        if gone is not None:
            gone()
