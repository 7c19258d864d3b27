"""Larger images by interpolation, whatever their size."""

from __future__ import annotations

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call


@lowers(keras.layers.UpSampling2D)
def lower_up_sampling_2d(layer: keras.layers.UpSampling2D) -> Call | None:
    """One resize; Keras asks in Python whether the size is positive, which a graph cannot say."""
    if layer.interpolation == "nearest":
        return None
    channels_first = layer.data_format == "channels_first"

    def call(images: tf.Tensor) -> tf.Tensor:
        x = tf.transpose(images, [0, 2, 3, 1]) if channels_first else images
        size = tf.shape(x)[1:3] * tf.constant(layer.size)
        y = tf.cast(tf.image.resize(x, size, layer.interpolation), x.dtype)
        free = [
            None if n is None else n * by for n, by in zip(x.shape[1:3], layer.size, strict=True)
        ]
        y = tf.ensure_shape(y, [x.shape[0], *free, x.shape[3]])
        return tf.transpose(y, [0, 3, 1, 2]) if channels_first else y

    return call
