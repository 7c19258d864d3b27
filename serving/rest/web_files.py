"""The files of the page at `/`: what a browser gets, and how long it may keep it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FIRST_FILE = "index.html"
_FOLDER = Path(__file__).parent / "web"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page needs no other server, no inline script and no inline style, and stands in no frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class WebFile:
    """One file of the page.

    Args:
        content: its bytes.
        media_type: what they are.
        etag: changes with them.
    """

    content: bytes
    media_type: str
    etag: str

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that go with it."""
        return {
            "ETag": self.etag,
            "Cache-Control": "no-cache",  # a browser asks whether it changed, and gets 304
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }

    def is_kept(self, if_none_match: str) -> bool:
        """Whether a client that sent this header has it already."""
        kept = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
        return self.etag in kept or kept == ["*"]


@functools.cache
def web_files() -> Mapping[str, WebFile]:
    """Name -> file; read once, so that a name of a request never becomes a path."""
    files = {}
    for path in sorted(_FOLDER.iterdir()):
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        files[path.name] = WebFile(content, _TYPES[path.suffix], etag)
    return files
