"""Serving of exported models under onnxruntime, without TensorFlow.

    from keras_blocks.serving import Model, load_repository, serve

    model = Model.load("models/trees/1/model.onnx")
    model.predict({"tokens": [[4, 7, 7], [9]]})          # ragged: rows of unequal length
    serve("models", port=8080)                           # the Open Inference Protocol over HTTP

The names load on first use. A model needs numpy and onnxruntime, the server the extra `serving`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from keras_blocks.errors import MissingExtraError

if TYPE_CHECKING:
    from keras_blocks.serving.client import AsyncClient, Client, ServerError
    from keras_blocks.serving.jobs import BatchSettings
    from keras_blocks.serving.limits import Limits
    from keras_blocks.serving.model import Model
    from keras_blocks.serving.repository import ModelNotFoundError, Repository, load_repository
    from keras_blocks.serving.server import serve
    from keras_blocks.serving.session import RunError

_HOMES = {
    "AsyncClient": "client",
    "BatchSettings": "jobs",
    "Client": "client",
    "Limits": "limits",
    "Model": "model",
    "ModelNotFoundError": "repository",
    "Repository": "repository",
    "RunError": "session",
    "ServerError": "client",
    "load_repository": "repository",
    "serve": "server",
}
_EXTRA = frozenset({"google", "hpack", "httptools", "orjson"})

__all__ = [
    "AsyncClient",
    "BatchSettings",
    "Client",
    "Limits",
    "Model",
    "ModelNotFoundError",
    "Repository",
    "RunError",
    "ServerError",
    "load_repository",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_blocks.serving' has no attribute '{name}'")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRA:
            raise
        raise MissingExtraError(f"keras_blocks.serving.{name}", "serving", package) from None
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
