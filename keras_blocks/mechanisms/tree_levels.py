"""Rows that are kept level by level: taken by a loop from the deepest level up, or put by it.

There are two forms. The one for training keeps the levels in lists, taken from and put at the end,
whose gradient costs the rows of one level, where the gradient of a slice builds the whole array for
every level. The one for inference slices, which converts to ONNX, where lists do not.

All of them are used alike in a loop: `start` goes in, and each method takes what is kept so far
and gives it back.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf


class Slices:
    """Takes levels as slices.

    Args:
        values: (rows, ...) the rows of all levels after one another, level 0 first.
        counts: int64 (levels,) how many rows each level has.
    """

    start: Any = ()
    shape: Any = ()

    def __init__(self, values: tf.Tensor, counts: tf.Tensor):
        self.values = values
        starts = tf.cumsum(counts, exclusive=True)
        # One row for each level and an entry for each axis: so one ONNX Slice is enough.
        zeros = [tf.zeros_like(counts)] * (values.shape.rank - 1)
        widths = [tf.fill(tf.shape(counts), tf.constant(n, tf.int64)) for n in values.shape[1:]]
        self.begins = tf.stack([starts, *zeros], axis=1)
        self.ends = tf.stack([starts + counts, *widths], axis=1)

    def read(self, level: tf.Tensor) -> tf.Tensor:
        """The rows of any level."""
        begin, end = tf.gather(self.begins, level), tf.gather(self.ends, level)
        rows = tf.strided_slice(self.values, begin, end)
        return tf.ensure_shape(rows, [None, *self.values.shape[1:]])

    def take(self, level: tf.Tensor, kept: Any) -> tuple[tf.Tensor, Any]:
        """The rows of the deepest level that was not taken yet, which is `level`."""
        return self.read(level), kept


class Stack:
    """Takes levels from the end of a list; the arguments and `take` are those of `Slices`."""

    shape = tf.TensorShape([])

    def __init__(self, values: tf.Tensor, counts: tf.Tensor):
        self.width, self.dtype = values.shape[1], values.dtype
        self.start = tf.raw_ops.TensorListSplit(
            tensor=values, element_shape=[-1, self.width], lengths=counts
        )

    def take(self, level: tf.Tensor, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of the deepest level that was not taken yet, which is `level`."""
        kept, rows = tf.raw_ops.TensorListPopBack(
            input_handle=kept, element_shape=[-1, self.width], element_dtype=self.dtype
        )
        return tf.ensure_shape(rows, [None, self.width]), kept


class Nowhere:
    """Keeps nothing that is put: for those who want the last level only."""

    start: Any = ()
    shape: Any = ()

    def put(self, rows: tf.Tensor, level: tf.Tensor, kept: Any) -> Any:
        """Nothing, still."""
        return kept


class Buffer:
    """Puts levels into one tensor.

    Args:
        counts: int64 (levels,) how many rows each level has.
        width: int, the width of the rows.
        dtype: of the rows.
    """

    def __init__(self, counts: tf.Tensor, width: int, dtype: Any):
        self.start = tf.zeros(tf.stack([tf.reduce_sum(counts), width]), dtype)
        self.shape = tf.TensorShape([None, width])
        self.starts = tf.cumsum(counts, exclusive=True)

    def put(self, rows: tf.Tensor, level: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept` with the rows of this level."""
        places = tf.gather(self.starts, level) + tf.range(tf.shape(rows, out_type=tf.int64)[0])
        return tf.tensor_scatter_nd_update(kept, places[:, None], rows)

    def rows(self, kept: tf.Tensor) -> tf.Tensor:
        """The rows of all levels, level 0 first."""
        return kept


class Pile:
    """Puts levels at the end of a list; the arguments and methods are those of `Buffer`."""

    shape = tf.TensorShape([])

    def __init__(self, counts: tf.Tensor, width: int, dtype: Any):
        self.counts, self.width, self.dtype = counts, width, dtype
        self.start = tf.raw_ops.EmptyTensorList(
            element_shape=[-1, width], max_num_elements=-1, element_dtype=dtype
        )

    def put(self, rows: tf.Tensor, level: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept` with the rows of this level."""
        return tf.raw_ops.TensorListPushBack(input_handle=kept, tensor=rows)

    def rows(self, kept: tf.Tensor) -> tf.Tensor:
        """The rows of all levels, level 0 first."""
        rows, _ = tf.raw_ops.TensorListConcatV2(
            input_handle=kept,
            element_shape=[-1, self.width],
            leading_dims=tf.zeros([0], tf.int64),
            element_dtype=self.dtype,
        )
        # They were put deepest level first; within a level their order stays.
        starts = tf.cumsum(self.counts, exclusive=True)
        piled = tf.cumsum(self.counts, exclusive=True, reverse=True)
        shifts = tf.repeat(piled - starts, self.counts)
        return tf.gather(rows, tf.range(tf.size(shifts, out_type=tf.int64)) + shifts)
