"""Web pages of other origins: which may ask, and that none of them changes the server unasked.

A browser lets any page send a plain POST anywhere, to a server on the user's own machine too, and
only keeps the answer from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from keras_blocks.errors import KerasBlocksError
from keras_blocks.serving.errors import ClosedError
from keras_blocks.serving.protocol.names import HEADER_LENGTH

Headers = Mapping[bytes, bytes]

_ORIGIN = re.compile(r"https?://[^/?#\s,]+|null", re.IGNORECASE)
_OWN_SITE = frozenset({"", "same-origin", "none"})
_ANY = "*"
_EXPOSED = f"{HEADER_LENGTH}, Retry-After, X-Request-Id"
_TAKEN = "Authorization, Content-Type, Content-Encoding, traceparent, X-Request-Id"
_PREFLIGHT_SECONDS = "600"


@dataclass(frozen=True)
class Origins:
    """The origins whose pages may ask.

    Args:
        allowed: such as "https://example.com:8443"; "*" for all.
    Raises:
        KerasBlocksError: one of them is none.
    """

    allowed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for origin in self.allowed:
            if origin != _ANY and not _ORIGIN.fullmatch(origin):
                raise KerasBlocksError(
                    f"--cors-origin is {origin!r}, expected one like https://example.com, or '*'"
                )
        object.__setattr__(self, "allowed", tuple(origin.lower() for origin in self.allowed))

    def __bool__(self) -> bool:
        return bool(self.allowed)

    def check_change(self, headers: Headers) -> None:
        """Lets a request pass that loads or unloads models.

        Raises:
            ClosedError: a browser sent it for a page of another origin that is not named here.
        """
        origin = _text(headers, b"origin")
        if origin in self.allowed:
            return
        own = not origin or urlsplit(origin).netloc == _text(headers, b"host")
        if not own or _text(headers, b"sec-fetch-site") not in _OWN_SITE:
            raise ClosedError(
                f"models are not loaded or unloaded for a web page of another origin "
                f"({origin[:100] or 'unknown'}); the server may allow it with --cors-origin"
            )

    def answer_headers(self, headers: Headers) -> dict[str, str]:
        """The headers by which a browser lets a page read the answer."""
        origin = _text(headers, b"origin")
        if not origin:
            return {"Vary": "Origin"}
        if origin in self.allowed or _ANY in self.allowed:
            named = headers[b"origin"].decode("latin-1").strip()
            shown = {"Access-Control-Allow-Origin": named, "Vary": "Origin"}
            return {**shown, "Access-Control-Expose-Headers": _EXPOSED}
        return {"Vary": "Origin"}

    def preflight_headers(self, headers: Headers, methods: Collection[str]) -> dict[str, str]:
        """The headers by which a browser learns what a page may send."""
        if "Access-Control-Allow-Origin" not in self.answer_headers(headers):
            return {}
        return {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": f"{_TAKEN}, {HEADER_LENGTH}",
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        }


NO_OTHERS = Origins()


def _text(headers: Headers, name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").strip().lower()
