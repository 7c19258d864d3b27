"""Numbers rounded to those that so many bits can hold, as in training for quantisation.

    y = (floor((clip(x) - low) / step + 1/2)) step + low

where the range is first moved so that zero is one of the numbers.
"""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites


@rewrites("FakeQuantWithMinMaxArgs")
def quantize_by_attributes(op: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    """By a range that is an attribute."""
    low, high = (tf.constant(op.get_attr(name), "float32") for name in ("min", "max"))
    return quantize_by_range(op, x, low, high)


@rewrites("FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel")
def quantize_by_range(op: tf.Operation, x: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """By a range, or one for each channel."""
    least = tf.constant(1.0 if op.get_attr("narrow_range") else 0.0)
    most = tf.constant(float(2 ** op.get_attr("num_bits") - 1))
    empty = tf.equal(low, 0) & tf.equal(high, 0)
    step = (high - low) / (most - least)
    step = tf.where(empty, tf.ones_like(step), step)
    zero = tf.clip_by_value(tf.floor(least - low / step + 0.5), least, most)
    bottom, top = (least - zero) * step, (most - zero) * step
    inverse = 1 / step
    first = tf.floor(-bottom * inverse + 0.5)
    steps = tf.floor((tf.clip_by_value(x, bottom, top) - bottom) * inverse - first + 0.5)
    return tf.where(empty, tf.zeros_like(x), steps * step)
