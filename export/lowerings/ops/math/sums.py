"""Sums of other kinds, and vector products."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites
from keras_blocks.export.tracing.op_copies import copy_op


@rewrites("EuclideanNorm")
def euclidean_norm(op: tf.Operation, x: tf.Tensor, axes: tf.Tensor) -> tf.Tensor:
    """The root of the sum of squares."""
    return tf.sqrt(tf.reduce_sum(x * x, axes, keepdims=op.get_attr("keep_dims")))


@rewrites("Cross")
def cross(op: tf.Operation, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The vector product of the last axis of three."""
    after, before = [1, 2, 0], [2, 0, 1]

    def take(x: tf.Tensor, places: list[int]) -> tf.Tensor:
        return tf.gather(x, places, axis=-1)

    return take(a, after) * take(b, before) - take(a, before) * take(b, after)


@rewrites("CumulativeLogsumexp")
def cumulative_logsumexp(op: tf.Operation, x: tf.Tensor, axis: tf.Tensor) -> tf.Tensor:
    """log of the running sum of exp(x): each round adds what stands twice as far before."""
    rank = x.shape.rank
    along = int(tf.get_static_value(axis)) % rank
    order = [a for a in range(rank) if a != along] + [along]
    y = tf.transpose(x, order)
    if op.get_attr("reverse"):
        y = tf.reverse(y, [-1])
    nothing = tf.constant(-np.inf, x.dtype)
    count = tf.shape(y)[-1]

    def shifted(z: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
        front = tf.fill(tf.concat([tf.shape(z)[:-1], [by]], 0), nothing)
        return tf.concat([front, z[..., : count - by]], -1)

    if op.get_attr("exclusive"):
        y = shifted(y, tf.minimum(1, count))
    _, y = tf.while_loop(
        lambda by, _: by < count,
        lambda by, z: (by * 2, _add_logs(z, shifted(z, by))),
        [tf.constant(1), y],
    )
    if op.get_attr("reverse"):
        y = tf.reverse(y, [-1])
    return tf.transpose(y, list(np.argsort(order)))


def _add_logs(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(exp(a) + exp(b))"""
    largest = tf.maximum(a, b)
    finite = tf.math.is_finite(largest)
    gap = tf.where(finite, tf.abs(a - b), tf.zeros_like(a))
    return tf.where(finite, largest + tf.math.log1p(tf.exp(-gap)), largest)


_NARROW = (tf.int8, tf.uint8, tf.int16, tf.uint16, tf.uint32)


def _is_narrow(op: tf.Operation, given: Any) -> bool:
    return op.inputs[0].dtype in _NARROW


@rewrites("Add", "AddV2", "Sub", "Mul", "Square", when=_is_narrow)
def compute_in_int64(op: tf.Operation, *given: tf.Tensor) -> tf.Tensor:
    """onnxruntime adds and multiplies no small and unsigned integers: int64 has room for all of
    them, and what is cast back wraps around as they do."""
    narrow = op.inputs[0].dtype.as_datatype_enum
    wide = [tf.cast(x, "int64") for x in given]
    (result,) = copy_op(op, wide, {narrow: tf.int64.as_datatype_enum})
    return tf.cast(result, op.outputs[0].dtype)
