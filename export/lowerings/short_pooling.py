"""Pooling of axes that may turn out shorter than the window.

onnxruntime rounds the number of windows towards zero, and gives a step where none fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.conversion.hooks import Call
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.short_axes import unless_too_short


@lowers(
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
)
def lower_pooling(layer: Any) -> Call | None:
    """The layer's own call where every window fits; else no steps, as in Keras."""
    if layer.padding == "same":
        return None
    own_call = layer.call
    widths, strides = tuple(layer.pool_size), tuple(layer.strides)
    last = layer.data_format == "channels_last"

    def count(sizes: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        along = zip(sizes, widths, strides, strict=True)
        return [tf.maximum(1 + (size - width) // stride, 0) for size, width, stride in along]

    def call(inputs: tf.Tensor) -> tf.Tensor:
        sizes = inputs.shape[1:-1] if last else inputs.shape[2:]
        if None not in sizes:
            return own_call(inputs)
        rank = len(widths)
        to_last, to_first = [0, *range(2, rank + 2), 1], [0, rank + 1, *range(1, rank + 1)]
        x = inputs if last else tf.transpose(inputs, to_last)

        def slide() -> tf.Tensor:
            return own_call(x) if last else tf.transpose(own_call(inputs), to_last)

        y = unless_too_short(x, widths, slide, count)
        return y if last else tf.transpose(y, to_first)

    return call
