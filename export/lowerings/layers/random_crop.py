"""Random crops, which crop in training only."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call


@lowers(keras.layers.RandomCrop)
def lower_random_crop(layer: keras.layers.RandomCrop) -> Call:
    """Images as they are; Keras finds the place of a crop first, for which it wants their size."""
    own_call = layer.call

    def call(data: Any, training: bool | None = None) -> Any:
        if training or isinstance(data, dict):
            return own_call(data, training=training)
        return tf.convert_to_tensor(data)

    return call
