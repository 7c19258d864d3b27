"""A layer over every step at once: batch and time become one axis."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call


@lowers(keras.layers.TimeDistributed)
def lower_time_distributed(layer: keras.layers.TimeDistributed) -> Call:
    """Reshapes in place of a loop over the steps, whose count tf2onnx would freeze."""
    inner = layer.layer

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        inputs = tf.convert_to_tensor(inputs)
        leading = tf.shape(inputs)[:2]
        kwargs = {}
        if inner._call_has_mask_arg and mask is not None:
            kwargs["mask"] = _merged(mask)
        if inner._call_has_training_arg:
            kwargs["training"] = training
        outputs = inner.call(_merged(inputs), **kwargs)
        return keras.tree.map_structure(lambda y: _split(y, leading, inputs.shape[:2]), outputs)

    return call


@lowers(kb.Map)
def lower_map(layer: kb.Map) -> Call:
    """The layer on the steps alone: ONNX's ops take none, as TensorFlow's do not."""

    def call_layer(steps: tf.Tensor, mask: Any) -> Any:
        if mask is not None:
            steps._keras_mask = mask
        return layer.layer(steps)

    def call(inputs: Any, mask: Any = None) -> Any:
        return layer.apply(call_layer, inputs, mask)

    return call


def _merged(tensor: tf.Tensor) -> tf.Tensor:
    """(batch * time, ...)."""
    static, shape = tensor.shape[2:], tf.shape(tensor)
    rest = static if static.is_fully_defined() else shape[2:]
    merged = tf.reshape(tensor, tf.concat([[-1], rest], axis=0))
    return tf.ensure_shape(merged, [None, *static])


def _split(tensor: tf.Tensor, leading: tf.Tensor, static_leading: tf.TensorShape) -> tf.Tensor:
    """The inverse of `_merged`."""
    static = tensor.shape[1:]
    rest = static if static.is_fully_defined() else tf.shape(tensor)[1:]
    result = tf.reshape(tensor, tf.concat([leading, rest], axis=0))
    return tf.ensure_shape(result, [*static_leading, *static])
