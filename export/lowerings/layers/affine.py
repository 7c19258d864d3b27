"""Linear maps of the last axis as one product, and lookups as one gather."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.ragged import is_ragged, map_values


@lowers(keras.layers.Dense, kb.Vanilla)
def lower_dense(layer: keras.layers.Dense) -> Call | None:
    """A MatMul of any rank, where Keras flattens, multiplies and restores the shape."""
    if layer.quantization_mode is not None:
        return None

    def product(x: tf.Tensor) -> tf.Tensor:
        y = tf.linalg.matmul(x, tf.convert_to_tensor(layer.kernel))
        if layer.bias is not None:
            y = y + tf.convert_to_tensor(layer.bias)
        return y if layer.activation is None else layer.activation(y)

    own_call = layer.call

    def call(inputs: Any, training: bool | None = None) -> Any:
        if is_ragged(inputs):
            return map_values(product, inputs)
        if not isinstance(inputs, tf.Tensor) or not inputs.shape.rank or inputs.shape.rank < 2:
            return own_call(inputs)
        return product(inputs)

    return call


@lowers(keras.layers.Embedding, kb.Embedding)
def lower_embedding(layer: keras.layers.Embedding) -> Call | None:
    """A Gather, which counts negative indices from the end by itself, as Keras does."""
    if layer.quantization_mode is not None:
        return None

    def look_up(ids: tf.Tensor) -> tf.Tensor:
        ids = ids if ids.dtype.is_integer else tf.cast(ids, tf.int32)
        table = tf.cast(tf.convert_to_tensor(layer.embeddings), layer.compute_dtype)
        return tf.gather(table, ids)

    def call(inputs: Any) -> Any:
        return map_values(look_up, inputs) if is_ragged(inputs) else look_up(inputs)

    return call
