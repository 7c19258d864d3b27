"""The exporters that are compared, each as a function from a model to a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
import tf2onnx

from keras_blocks.export import export_onnx

TF2ONNX_OPSET = 18


def _ours(model: keras.Model, path: Path) -> None:
    export_onnx(model, path, verify=False, verbose=False)


def _proven(model: keras.Model, path: Path) -> None:
    export_onnx(model, path, verbose=False)


def _stock(model: keras.Model, path: Path) -> None:
    model.export(str(path), format="onnx", verbose=False)


def _tf2onnx(model: keras.Model, path: Path) -> None:
    specs = [tf.TensorSpec(x.shape, x.dtype, name=f"x{i}") for i, x in enumerate(model.inputs)]

    @tf.function(input_signature=specs)
    def run(*inputs: tf.Tensor) -> Any:
        return keras.tree.flatten(
            model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
        )

    tf2onnx.convert.from_function(
        run, input_signature=specs, opset=TF2ONNX_OPSET, output_path=str(path)
    )


EXPORTERS: dict[str, Callable[[keras.Model, Path], None]] = {
    "ours": _ours,
    "proven": _proven,
    "stock": _stock,
    "tf2onnx": _tf2onnx,
}
# Of the others nobody says which exceptions are meant for the user.
OURS = ("ours", "proven")
