"""Category encodings that have no ONNX form, refused with the reason."""

from __future__ import annotations

from typing import Any

import keras

from keras_blocks.errors import ExportError
from keras_blocks.export.conversion.hooks import Call
from keras_blocks.export.lowerings.registry import lowers


@lowers(keras.layers.CategoryEncoding)
def lower_category_encoding(layer: keras.layers.CategoryEncoding) -> Call:
    """Keras's own, where the result is dense and of known rank."""
    own_call = layer.call

    def call(inputs: Any, count_weights: Any = None) -> Any:
        if layer.sparse:
            raise ExportError(
                f"layer '{layer.name}' gives a sparse tensor, and ONNX has none. Build it with "
                "sparse=False."
            )
        if layer.output_mode == "one_hot" and inputs.shape.rank > 1 and inputs.shape[-1] is None:
            raise ExportError(
                f"layer '{layer.name}' drops a last axis of size 1 and keeps any other, and here "
                "that size is free; an ONNX output has a fixed rank. Give the axis a size."
            )
        return own_call(inputs, count_weights=count_weights)

    return call
