"""Serving of exported models under onnxruntime, without TensorFlow.

    from keras_blocks.serving import Model, load_repository, serve

    model = Model.load("models/trees/1/model.onnx")
    model.predict({"tokens": [[4, 7, 7], [9]]})          # ragged: rows of unequal length
    serve("models", port=8080)                           # the Open Inference Protocol over HTTP

The names load on first use. A model needs numpy and onnxruntime, the server the extra `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_blocks.lazy import member

if TYPE_CHECKING:
    from keras_blocks.errors import RunError
    from keras_blocks.serving.client.client import AsyncClient, Client
    from keras_blocks.serving.errors import ModelNotFoundError, ServerError
    from keras_blocks.serving.limits import Limits
    from keras_blocks.serving.model import Model
    from keras_blocks.serving.process.serve import serve
    from keras_blocks.serving.repository.model_settings import BatchSettings
    from keras_blocks.serving.repository.repository import Repository, load_repository

_HOMES = {
    "AsyncClient": "client.client",
    "BatchSettings": "repository.model_settings",
    "Client": "client.client",
    "Limits": "limits",
    "Model": "model",
    "ModelNotFoundError": "errors",
    "Repository": "repository.repository",
    "RunError": "keras_blocks.errors",
    "ServerError": "errors",
    "load_repository": "repository.repository",
    "serve": "process.serve",
}

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
    needs = {"google", "google.protobuf", "hpack", "httptools", "orjson"}
    return member(__name__, name, _HOMES, "serving", needs)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
