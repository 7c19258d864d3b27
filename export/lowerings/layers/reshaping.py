"""Reshapes of known sizes, which Keras gives the size of the batch to: it is what is left over."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call


@lowers(keras.layers.Flatten, keras.layers.Reshape)
def lower_reshape(layer: Any) -> Call | None:
    """A reshape to constant sizes; Keras's own call where one of the sizes is free."""
    if getattr(layer, "data_format", None) == "channels_first":
        return None
    own_call = layer.call

    def call(inputs: Any) -> Any:
        sizes = inputs.shape[1:]
        # The batch is only left over if there is something in a row.
        if None in sizes or not math.prod(sizes):
            return own_call(inputs)
        return tf.reshape(inputs, [-1, *layer.compute_output_shape(inputs.shape)[1:]])

    return call
