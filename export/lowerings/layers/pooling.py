"""Pooling of axes that may turn out shorter than the window.

onnxruntime rounds the number of windows towards zero, and gives a step where none fits. Keras
refuses such an input where it knows the size beforehand; so does the file. A branch around the
pooling would part onnxruntime's blocked layout of images, which makes a whole network slower.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.export.tracing.minimum_sizes import are_asked_for
from keras_blocks.windows.short_inputs import guard_short_input


@lowers(
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
)
def lower_pooling(layer: Any) -> Call | None:
    """The layer's own call, behind inputs of which the file refuses those that are too short.

    Where no input is known to refuse, a pooling without windows gives no steps.
    """
    if layer.padding == "same":
        return None
    own_call = layer.call
    widths, strides = tuple(layer.pool_size), tuple(layer.strides)
    last = layer.data_format == "channels_last"

    def count(sizes: Any) -> list[tf.Tensor]:
        along = zip(sizes, widths, strides, strict=True)
        return [tf.maximum(1 + (size - width) // stride, 0) for size, width, stride in along]

    def call(inputs: tf.Tensor) -> tf.Tensor:
        if are_asked_for(inputs, dict(enumerate(widths, start=1 if last else 2))):
            return own_call(inputs)
        rank = len(widths)
        to_last, to_first = [0, *range(2, rank + 2), 1], [0, rank + 1, *range(1, rank + 1)]
        x = inputs if last else tf.transpose(inputs, to_last)

        def slide() -> tf.Tensor:
            return own_call(x) if last else tf.transpose(own_call(inputs), to_last)

        y = guard_short_input(x, widths, slide, count, strides=strides)
        return y if last else tf.transpose(y, to_first)

    return call
