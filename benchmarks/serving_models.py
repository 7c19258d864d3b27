"""The models that the servers race with, and the requests that they are asked."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MODELS = ("tiny", "seq", "ragged", "free")
WORDS, STEPS, UNITS, CLASSES = 1000, 32, 64, 10
SHORTEST, LONGEST = 4, 128  # steps of a ragged row
MIXED = 64  # how many different ragged requests take turns


def build(folder: Path) -> None:
    """Exports the models into a repository, where they are not there yet."""
    names = [name for name in MODELS if not model_file(folder, name).exists()]
    if not names:
        return
    import keras

    import keras_blocks as kb
    from keras_blocks.export import export_onnx

    keras.utils.set_random_seed(0)
    x = keras.Input((64,), name="x")
    dense = keras.layers.Dense
    tokens = keras.Input((STEPS,), dtype="int32", name="tokens")
    rows = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    steps = keras.Input((None,), dtype="int32", name="tokens")

    def scores(ids: Any) -> Any:
        embedded = keras.layers.Embedding(WORDS, UNITS)(ids)
        return dense(CLASSES, name="y")(keras.layers.LSTM(UNITS)(embedded))

    models = {
        "tiny": (x, dense(CLASSES, name="y")(dense(128, activation="relu")(x))),
        "seq": (tokens, scores(tokens)),
        "free": (steps, scores(steps)),
        "ragged": (
            rows,
            kb.Vanilla(CLASSES, activation=None, name="y")(
                kb.LSTM(UNITS)(kb.Embedding(WORDS, UNITS)(rows))
            ),
        ),
    }
    for name in names:
        export_onnx(keras.Model(*models[name]), model_file(folder, name))


def model_file(folder: Path, name: str) -> Path:
    """Where a model lies in a repository."""
    return folder / name / "1" / "model.onnx"


def arrays(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """The inputs of a one-row request."""
    generator = np.random.default_rng(seed)
    if name == "tiny":
        return {"x": generator.random((1, 64)).astype("float32")}
    if name == "seq":
        return {"tokens": generator.integers(0, WORDS, (1, STEPS)).astype("int32")}
    steps = int(generator.integers(SHORTEST, LONGEST + 1))
    tokens = generator.integers(0, WORDS, steps).astype("int32")
    if name == "free":
        return {"tokens": tokens[None]}
    return {"tokens": tokens, "tokens.row_splits": np.array([0, steps])}


_DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}


def json_body(name: str, seed: int = 0) -> bytes:
    """A request of the Open Inference Protocol in JSON."""
    tensors = [
        {**_head(n, a), "data": np.round(a, 6).reshape(-1).tolist()}
        for n, a in arrays(name, seed).items()
    ]
    return json.dumps({"inputs": tensors}, separators=(",", ":")).encode()


def binary_body(name: str, seed: int = 0) -> tuple[bytes, int]:
    """The same with binary tensors in and out, and the length of its JSON."""
    given = arrays(name, seed)
    tensors = [
        {**_head(n, a), "parameters": {"binary_data_size": a.nbytes}} for n, a in given.items()
    ]
    body = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    head = json.dumps(body, separators=(",", ":")).encode()
    return head + b"".join(array.tobytes() for array in given.values()), len(head)


def grpc_body(name: str, seed: int = 0) -> bytes:
    """The same as a gRPC message with its prefix."""
    from keras_blocks.serving.grpc.messages import message_class

    given = arrays(name, seed)
    message = message_class("ModelInferRequest")(
        model_name=name,
        inputs=[_head(n, a) for n, a in given.items()],
        raw_input_contents=[array.tobytes() for array in given.values()],
    ).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def mosec_body(name: str, seed: int = 0) -> bytes:
    """Mosec has no protocol of its own: the rows as a JSON list."""
    return json.dumps(np.round(next(iter(arrays(name, seed).values()))[0], 6).tolist()).encode()


def _head(name: str, array: np.ndarray) -> dict[str, Any]:
    return {"name": name, "datatype": _DATATYPES[str(array.dtype)], "shape": list(array.shape)}
