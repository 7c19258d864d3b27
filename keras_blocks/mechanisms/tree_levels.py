"""Rows that are kept level by level: read one level, write one level, in two forms.

The form for training is the TensorArray, whose gradient touches one level at a time, where the
gradient of a slice builds the whole array for every level. The form for inference is the slice,
which converts to ONNX, where the TensorArray does not.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class Slices:
    """Reads levels as slices.

    Args:
        values: (rows, ...) the rows of all levels after one another.
        counts: int64 (levels,) how many rows each level has.
    """

    def __init__(self, values: tf.Tensor, counts: tf.Tensor):
        self.values = values
        starts = tf.cumsum(counts, exclusive=True)
        # One row for each level and an entry for each axis: so one ONNX Slice is enough.
        zeros = [tf.zeros_like(counts)] * (values.shape.rank - 1)
        widths = [tf.fill(tf.shape(counts), tf.constant(n, tf.int64)) for n in values.shape[1:]]
        self.begins = tf.stack([starts, *zeros], axis=1)
        self.ends = tf.stack([starts + counts, *widths], axis=1)

    def read(self, level: tf.Tensor) -> tf.Tensor:
        """The rows of this level."""
        begin, end = tf.gather(self.begins, level), tf.gather(self.ends, level)
        rows = tf.strided_slice(self.values, begin, end)
        return tf.ensure_shape(rows, [None, *self.values.shape[1:]])


class Pieces:
    """Reads levels from a TensorArray; the arguments are those of `Slices`."""

    def __init__(self, values: tf.Tensor, counts: tf.Tensor):
        self.shape = [None, *values.shape[1:]]
        array = tf.TensorArray(
            values.dtype,
            size=tf.size(counts),
            element_shape=self.shape,
            infer_shape=False,
            clear_after_read=False,
        )
        self.array = array.split(values, tf.cast(counts, tf.int32))

    def read(self, level: tf.Tensor) -> tf.Tensor:
        """The rows of this level."""
        return tf.ensure_shape(self.array.read(tf.cast(level, tf.int32)), self.shape)


class Nowhere:
    """Writes nothing: for those who want the last level only."""

    empty = ()
    shape = ()

    def write(self, rows: tf.Tensor, level: tf.Tensor, kept: Any) -> Any:
        """Nothing, still."""
        return kept


class Buffer:
    """Writes levels into one tensor: `empty` goes into a loop, `write` takes it and gives it back.

    Args:
        counts: int64 (levels,) how many rows each level has; the first has none.
        width: int, the width of the rows.
        dtype: of the rows.
    """

    def __init__(self, counts: tf.Tensor, width: int, dtype: Any):
        rows = tf.stack([tf.reduce_sum(counts), tf.constant(width, tf.int64)])
        self.empty = tf.zeros(rows, dtype)
        self.shape = tf.TensorShape([None, width])
        self.starts = tf.cumsum(counts, exclusive=True)

    def write(self, rows: tf.Tensor, level: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept` with the rows of this level written."""
        places = tf.gather(self.starts, level) + tf.range(tf.shape(rows, out_type=tf.int64)[0])
        return tf.tensor_scatter_nd_update(kept, places[:, None], rows)

    def rows(self, kept: tf.Tensor) -> tf.Tensor:
        """The rows of all levels after one another."""
        return kept


class Array:
    """Writes levels into a TensorArray; the arguments and methods are those of `Buffer`."""

    shape = tf.TensorShape(None)

    def __init__(self, counts: tf.Tensor, width: int, dtype: Any):
        array = tf.TensorArray(
            dtype, size=tf.size(counts), element_shape=[None, width], infer_shape=False
        )
        self.empty = array.write(0, tf.zeros([0, width], dtype))

    def write(self, rows: tf.Tensor, level: tf.Tensor, kept: tf.TensorArray) -> tf.TensorArray:
        """`kept` with the rows of this level written."""
        return kept.write(tf.cast(level, tf.int32), rows)

    def rows(self, kept: tf.TensorArray) -> tf.Tensor:
        """The rows of all levels after one another."""
        return kept.concat()
