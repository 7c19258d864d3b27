"""The shape that two shapes broadcast to."""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites


@rewrites("BroadcastArgs")
def broadcast_shapes(op: tf.Operation, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Size by size from the last on: the one that is not 1."""
    ranks = tf.shape(a)[0], tf.shape(b)[0]
    rank = tf.maximum(*ranks)
    a, b = (
        tf.concat([tf.ones(rank - own[None], x.dtype), x], 0)
        for own, x in zip(ranks, (a, b), strict=True)
    )
    return tf.where(tf.equal(a, 1), b, a)
