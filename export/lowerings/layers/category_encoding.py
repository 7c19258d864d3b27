"""Category encodings that have no ONNX form, refused with the reason."""

from __future__ import annotations

from typing import Any

import keras

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.export.tracing.minimum_sizes import are_asked_for


@lowers(keras.layers.CategoryEncoding)
def lower_category_encoding(layer: keras.layers.CategoryEncoding) -> Call:
    """Keras's own, where the result is dense and of known rank.

    Of a free last axis Keras asks in Python whether it has one step; the file refuses a single one,
    which would be an output of another rank.
    """
    own_call = layer.call

    def call(inputs: Any, count_weights: Any = None) -> Any:
        if layer.sparse:
            raise ExportError(
                f"layer '{layer.name}' gives a sparse tensor, and ONNX has none. Build it with "
                "sparse=False."
            )
        last = inputs.shape.rank - 1
        if layer.output_mode != "one_hot" or last < 1 or inputs.shape[last] is not None:
            return own_call(inputs, count_weights=count_weights)
        if not are_asked_for(inputs, {last: 2}):
            raise ExportError(
                f"layer '{layer.name}' drops a last axis of size 1 and keeps any other, and here "
                "that size is free, and not one of the model's inputs; an ONNX output has a fixed "
                "rank. Give the axis a size."
            )
        return keras.ops.one_hot(inputs, layer.num_tokens, dtype=layer.dtype)

    return call
