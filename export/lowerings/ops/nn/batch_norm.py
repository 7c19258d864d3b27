"""Normalisation by the statistics of training, for what is computed in float64."""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.export.lowerings.registry import exact_form


@exact_form("FusedBatchNormV3")
def normalize(
    op: tf.Operation,
    x: tf.Tensor,
    scale: tf.Tensor,
    offset: tf.Tensor,
    mean: tf.Tensor,
    var: tf.Tensor,
) -> list[tf.Tensor]:
    """(x - mean) / sqrt(variance + epsilon) scale + offset, of the last axis."""
    epsilon = tf.cast(op.get_attr("epsilon"), x.dtype)
    y = (x - mean) * (scale / tf.sqrt(var + epsilon)) + offset
    return [y, mean, var, mean, var, var]
