"""Normalizations over the last axes, and over groups of channels, as the ops that ONNX has.

Measured under onnxruntime 1.32, one thread: `LayerNormalization` takes 0.36 to 0.53 of the time of
the operations it stands for, `RMSNormalization` 0.45 to 0.67. For groups `InstanceNormalization`
over them takes 0.14 to 0.21, where ONNX's own `GroupNormalization` takes 0.21 to 0.34: onnxruntime
has no kernel for it and expands it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.passes.opset.newest import offers
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.export.tracing.stand_ins import onnx_node, target_opset
from keras_blocks.ragged import is_ragged

LAYER_NORMALIZATION_SINCE, RMS_NORMALIZATION_SINCE = 17, 23


@lowers(keras.layers.LayerNormalization)
def lower_layer_normalization(layer: keras.layers.LayerNormalization) -> Call | None:
    """One LayerNormalization, where the axes are the last ones."""
    if layer.rms_scaling or not offers(target_opset(), LAYER_NORMALIZATION_SINCE):
        return None
    own_call = layer.call

    def call(inputs: Any) -> Any:
        first = _first_of_last_axes(layer.axis, inputs)
        # onnxruntime's op makes float32 of float64 on the way.
        if first is None or inputs.dtype == tf.float64:
            return own_call(inputs)
        x = tf.cast(inputs, tf.float32)
        scale = tf.ones(x.shape[first:], x.dtype) if layer.gamma is None else _as(layer.gamma, x)
        given = [x, scale, None if layer.beta is None else _as(layer.beta, x)]
        y = _normalized("LayerNormalization", given, first, layer.epsilon)
        return tf.cast(y, layer.compute_dtype)

    return call


@lowers(keras.layers.RMSNormalization)
def lower_rms_normalization(layer: keras.layers.RMSNormalization) -> Call | None:
    """One RMSNormalization, where the axes are the last ones."""
    if not offers(target_opset(), RMS_NORMALIZATION_SINCE):
        return None
    own_call = layer.call

    def call(inputs: Any) -> Any:
        first = _first_of_last_axes(layer.axis, inputs)
        if first is None:
            return own_call(inputs)
        x = _at_least_float32(inputs)
        y = _normalized("RMSNormalization", [x, _as(layer.scale, x)], first, layer.epsilon)
        return tf.cast(y, inputs.dtype)

    return call


@lowers(keras.layers.GroupNormalization)
def lower_group_normalization(layer: keras.layers.GroupNormalization) -> Call | None:
    """An InstanceNormalization of the groups, each a channel of its own."""
    own_call = layer.call

    def call(inputs: Any) -> Any:
        rank = inputs.shape.rank
        if is_ragged(inputs) or rank is None or rank < 3 or inputs.dtype == tf.float64:
            return own_call(inputs)
        axis = layer.axis % rank
        to_first = [0, axis, *(i for i in range(1, rank) if i != axis)]
        x = _at_least_float32(inputs)
        y = _groups_normalized(layer, x if axis == 1 else tf.transpose(x, to_first))
        y = y if axis == 1 else tf.transpose(y, [to_first.index(i) for i in range(rank)])
        return tf.cast(tf.ensure_shape(y, inputs.shape), layer.compute_dtype)

    return call


def _groups_normalized(layer: keras.layers.GroupNormalization, x: tf.Tensor) -> tf.Tensor:
    """Of (batch, channels, ...)."""
    shape = tf.shape(x)
    # No size of -1: it could not be found for an empty batch.
    grouped = tf.reshape(x, [shape[0], layer.groups, tf.reduce_prod(shape[1:]) // layer.groups])
    spec = tf.TensorSpec([x.shape[0], layer.groups, None], x.dtype)
    plain = [tf.ones([layer.groups]), tf.zeros([layer.groups])]
    (y,) = onnx_node("InstanceNormalization", [grouped, *plain], [spec], epsilon=layer.epsilon)
    y = tf.reshape(y, shape)
    across = [-1] + [1] * (x.shape.rank - 2)
    if layer.scale:
        y = y * tf.reshape(_as(layer.gamma, x), across)
    return y + tf.reshape(_as(layer.beta, x), across) if layer.center else y


def _first_of_last_axes(axes: Sequence[int], inputs: Any) -> int | None:
    """The first of the axes, if they are the last ones and a native op knows the numbers."""
    rank = inputs.shape.rank
    if is_ragged(inputs) or rank is None or not inputs.dtype.is_floating:
        return None
    found = sorted(axis % rank for axis in axes)
    sizes = [inputs.shape[axis] for axis in found]
    last = found == list(range(found[0], rank)) and found[0] > 0
    return found[0] if last and None not in sizes and 0 not in sizes else None


def _normalized(op_type: str, given: Sequence[Any], first: int, epsilon: float) -> tf.Tensor:
    x = given[0]
    spec = tf.TensorSpec(x.shape, x.dtype)
    return onnx_node(op_type, given, [spec], axis=first - x.shape.rank, epsilon=epsilon)[0]


def _at_least_float32(inputs: tf.Tensor) -> tf.Tensor:
    """Keras adds up half precision in float32."""
    return inputs if inputs.dtype == tf.float64 else tf.cast(inputs, tf.float32)


def _as(weight: Any, inputs: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.convert_to_tensor(weight), inputs.dtype)
