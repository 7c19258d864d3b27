"""Sums, products and extremes of rows by the segment that each belongs to.

Rows of no segment go to one more, which is cut off: whether there are any rows or none, and of
integers too, it is one scatter that reduces.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites
from keras_blocks.export.tracing.stand_ins import onnx_node


@rewrites("UnsortedSegmentSum", "UnsortedSegmentProd", "UnsortedSegmentMax", "UnsortedSegmentMin")
def reduce_unsorted(op: tf.Operation, data: tf.Tensor, ids: tf.Tensor, count: tf.Tensor) -> Any:
    """Rows in any order; those of negative segments are left out."""
    kind = op.type.removeprefix("UnsortedSegment")
    return _reduce(kind, data, ids, count, _start(kind, data.dtype))


@rewrites("SegmentSum", "SegmentProd", "SegmentMax", "SegmentMin", "SegmentMean")
def reduce_sorted(op: tf.Operation, data: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """As many segments as the last row says; an empty one gives 0, and 1 of a product."""
    count = tf.reduce_max(tf.pad(ids + 1, [[0, 1]]))
    return _reduce_or_mean(op.type.removeprefix("Segment"), data, ids, count)


@rewrites("SegmentSumV2", "SegmentProdV2", "SegmentMaxV2", "SegmentMinV2")
def reduce_sorted_to(op: tf.Operation, data: Any, ids: Any, count: Any) -> tf.Tensor:
    """The same as of rows in any order."""
    kind = op.type.removeprefix("Segment").removesuffix("V2")
    return _reduce(kind, data, ids, count, _start(kind, data.dtype))


@rewrites(
    *("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"),
    *(f"SparseSegment{kind}WithNumSegments" for kind in ("Sum", "Mean", "SqrtN")),
)
def reduce_chosen(op: tf.Operation, data: Any, places: Any, ids: Any, count: Any = None) -> Any:
    """Of rows that are chosen first."""
    kind = op.type.removeprefix("SparseSegment").removesuffix("WithNumSegments")
    if count is None:
        count = tf.reduce_max(tf.pad(ids + 1, [[0, 1]]))
    return _reduce_or_mean(kind, tf.gather(data, places), ids, count)


def _reduce_or_mean(kind: str, data: tf.Tensor, ids: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    if kind not in ("Mean", "SqrtN"):
        start = tf.ones((), data.dtype) if kind == "Prod" else tf.zeros((), data.dtype)
        if kind in ("Sum", "Prod"):
            return _reduce(kind, data, ids, count, start)
        found = _reduce(kind, data, ids, count, _start(kind, data.dtype))
        return tf.where(_counts(data, ids, count) > 0, found, start)
    total = _reduce("Sum", data, ids, count, tf.zeros((), data.dtype))
    rows = tf.maximum(_counts(data, ids, count), 1)
    return total / (rows if kind == "Mean" else tf.sqrt(rows))


def _counts(data: tf.Tensor, ids: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """How many rows each segment has, to broadcast against its result."""
    ones = tf.ones_like(ids, data.dtype)
    rows = _reduce("Sum", ones, ids, count, tf.zeros((), data.dtype))
    shape = tf.concat([tf.shape(rows), [1] * (data.shape.rank - 1)], 0)
    return tf.reshape(rows, shape)


def _start(kind: str, dtype: tf.DType) -> tf.Tensor:
    """What TensorFlow gives for an empty segment."""
    value = {"Sum": 0, "Prod": 1, "Max": dtype.min, "Min": dtype.max}[kind]
    return tf.constant(value, dtype)


def _reduce(kind: str, data: Any, ids: Any, count: Any, start: Any) -> tf.Tensor:
    rest = tf.shape(data)[ids.shape.rank :]
    known = data.shape[ids.shape.rank :]
    flat = tf.reshape(data, tf.concat([[-1], rest], 0))
    flat.set_shape([None, *known])
    count = tf.cast(count, "int32")
    rows = tf.reshape(tf.cast(ids, "int32"), [-1])
    rows = tf.where((rows < 0) | (rows >= count), count, rows)
    target = tf.fill(tf.concat([[count + 1], rest], 0), start)
    target.set_shape([None, *known])
    if kind == "Prod":
        ones = tf.concat([tf.shape(rows), [1] * len(known)], 0)
        places = tf.broadcast_to(tf.reshape(rows, ones), tf.shape(flat))
        spec = tf.TensorSpec(target.shape, target.dtype)
        given = [target, tf.cast(places, "int64"), flat]
        (found,) = onnx_node("ScatterElements", given, [spec], axis=0, reduction="mul")
    else:
        scatter = {
            "Sum": tf.tensor_scatter_nd_add,
            "Max": tf.tensor_scatter_nd_max,
            "Min": tf.tensor_scatter_nd_min,
        }[kind]
        found = scatter(target, rows[:, None], flat)
    return found[:count]
