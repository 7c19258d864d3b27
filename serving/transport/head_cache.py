"""Heads of HTTP requests that were read before: most clients send the same one again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

_END = b"\r\n\r\n"
_MOST = 1024
_LONGEST = 2048  # bytes; longer ones are read anew each time


class Head(NamedTuple):
    """What stands before the body of a request behind which the connection stays open.

    Args:
        method: "GET", "POST", ...
        target: the path with its query, as it was sent.
        headers: name in lower case -> value.
        length: of the body.
    """

    method: bytes
    target: bytes
    headers: Mapping[bytes, bytes]
    length: int


class HeadCache:
    """What a parser made of heads. From the same bytes, where a request begins, it makes the same.

    Example:
        >>> heads, sent = HeadCache(), b"POST /x HTTP/1.1\\r\\nContent-Length: 2\\r\\n\\r\\nhi"
        >>> heads.add(sent, Head(b"POST", b"/x", {b"content-length": b"2"}, 2))
        >>> head, body = heads.find(sent[:-2] + b"no")
        >>> head.target, body
        (b'/x', b'no')
        >>> heads.find(sent + b"POST")  # not one whole request
    """

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def find(self, data: bytes) -> tuple[Head, bytes] | None:
        """The head and the body, if `data` is one whole request whose head is known."""
        end = data.find(_END, 0, _LONGEST) + len(_END)
        head = self._heads.get(data[:end])
        if head is None or end + head.length != len(data):
            return None
        return head, data[end:]

    def add(self, data: bytes, head: Head) -> None:
        """Remembers the head of the one request that a parser found in `data`."""
        end = data.find(_END, 0, _LONGEST) + len(_END)
        if end + head.length == len(data):
            if len(self._heads) >= _MOST:
                self._heads.clear()
            self._heads[data[:end]] = head
