"""The Open Inference Protocol over HTTP: what server and client must say alike."""

from __future__ import annotations

from urllib.parse import quote

JSON = "application/json"
OCTETS = "application/octet-stream"
HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header that says how long the JSON is, where binary tensors stand behind it."""


def model_path(name: str, version: int | None = None) -> str:
    """Where a model, or one version of it, is asked for.

    Example:
        >>> model_path("a b", 3)
        '/v2/models/a%20b/versions/3'
    """
    path = f"/v2/models/{quote(name, safe='')}"
    return path if version is None else f"{path}/versions/{version}"
