"""The middle of images whose size is not known."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call


@lowers(keras.layers.CenterCrop)
def lower_center_crop(layer: keras.layers.CenterCrop) -> Call:
    """The middle, or a resized image where it is too small: Keras asks in Python, which a graph
    takes for a yes."""
    own_call = layer.call
    first = layer.data_format == "channels_first"
    wanted = (layer.height, layer.width)

    def middle(images: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
        top, left = tf.unstack((sizes - tf.constant(wanted)) // 2)
        rows, columns = slice(top, top + layer.height), slice(left, left + layer.width)
        return images[..., rows, columns] if first else images[..., rows, columns, :]

    def resized(images: tf.Tensor) -> tf.Tensor:
        # It only ever enlarges, so antialiasing changes nothing; but TensorFlow has another
        # operation for it, whose ONNX form can stand in a branch (see `resizing`): shape inference
        # loses the sizes of a Resize there.
        y = keras.ops.image.resize(
            images,
            wanted,
            antialias=True,
            crop_to_aspect_ratio=True,
            data_format=layer.data_format,
        )
        return tf.cast(y, images.dtype)

    def call(data: Any, training: bool | None = None) -> Any:
        axes = (-2, -1) if first else (-3, -2)
        if isinstance(data, dict) or None not in [data.shape[axis] for axis in axes]:
            return own_call(data, training=training)
        images = tf.cast(data, layer.compute_dtype)
        sizes = tf.stack([tf.shape(images)[axis] for axis in axes])
        y = tf.cond(
            tf.reduce_all(sizes >= tf.constant(wanted)),
            lambda: middle(images, sizes),
            lambda: resized(images),
        )
        channels = data.shape[-3] if first else data.shape[-1]
        shape = [channels, *wanted] if first else [*wanted, channels]
        return tf.ensure_shape(y, [*data.shape[:-3], *shape])

    return call
