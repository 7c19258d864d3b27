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
    from keras_blocks.serving.app import create_app
    from keras_blocks.serving.limits import Limits
    from keras_blocks.serving.model import Model
    from keras_blocks.serving.repository import ModelNotFoundError, Repository, load_repository
    from keras_blocks.serving.server import serve
    from keras_blocks.serving.session import RunError

_HOMES = {
    "Limits": "limits",
    "Model": "model",
    "ModelNotFoundError": "repository",
    "Repository": "repository",
    "RunError": "session",
    "create_app": "app",
    "load_repository": "repository",
    "serve": "server",
}
_EXTRA = frozenset({"anyio", "orjson", "starlette", "uvicorn"})

__all__ = [
    "Limits",
    "Model",
    "ModelNotFoundError",
    "Repository",
    "RunError",
    "create_app",
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
