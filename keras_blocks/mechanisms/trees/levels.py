"""Rows that are kept level by level: taken by a loop from the deepest level up, or put by it.

There are two forms. The one with lists takes and puts at the end, and its gradient costs the rows
of one level, where the gradient of a slice builds the whole array for every level. The one with
slices converts to ONNX, where such lists do not, and is the faster one where no gradient is asked.

All of them are used alike in a loop: `start` goes in, and each method takes what is kept so far
and gives it back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_blocks.size_sums import sum_of_sizes


class RowRange(NamedTuple):
    """Some rows after one another, int64 (1,) each."""

    begin: tf.Tensor
    end: tf.Tensor

    def of(self, values: tf.Tensor) -> tf.Tensor:
        """These rows of the values."""
        rows = tf.strided_slice(values, self.begin, self.end)
        return tf.ensure_shape(rows, [None, *values.shape[1:]])


class SlicedLevels:
    """Takes levels as slices.

    Args:
        values: (rows, ...) the rows of all levels after one another, level 0 first; more rows may
            stand behind them.
        counts: int64 (levels,) how many rows each level has.
    """

    start: Any = ()
    shape: Any = ()

    def __init__(self, values: tf.Tensor, counts: tf.Tensor):
        self.values = values

    def take(self, rows: RowRange, kept: Any) -> tuple[tf.Tensor, Any]:
        """The deepest level that was not taken yet, whose rows these are."""
        return rows.of(self.values), kept


class PoppedLevels:
    """Takes levels from the end of a list; the arguments and `take` are those of `SlicedLevels`."""

    shape = tf.TensorShape([])

    def __init__(self, values: tf.Tensor, counts: tf.Tensor):
        self.row, self.dtype = values.shape[1:], values.dtype
        more = tf.shape(values, out_type=tf.int64)[:1] - sum_of_sizes(counts)
        levels = tf.raw_ops.TensorListSplit(
            tensor=values,
            element_shape=[-1, *self.row],
            lengths=tf.concat([counts, more], axis=0),
        )
        self.start, _ = pop(levels, self.row, self.dtype)

    def take(self, rows: RowRange, kept: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The deepest level that was not taken yet, whose rows these are."""
        kept, values = pop(kept, self.row, self.dtype)
        return values, kept


def pop(kept: tf.Tensor, row: Any, dtype: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """A list without its last tensor, and that tensor, of rows of this shape."""
    kept, values = tf.raw_ops.TensorListPopBack(
        input_handle=kept, element_shape=[-1, *row], element_dtype=dtype
    )
    return kept, tf.ensure_shape(values, [None, *row])


class DiscardingWriter:
    """Keeps nothing that is put: for those who want the last level only."""

    start: Any = ()
    shape: Any = ()

    def put(self, rows: tf.Tensor, kept: Any) -> Any:
        """Nothing, still."""
        return kept

    def begun(self, rows: tf.Tensor) -> Any:
        """Nothing."""
        return self.start

    def rows(self, kept: Any) -> None:
        """Nothing."""


class LevelWriter:
    """Puts levels behind one another.

    Args:
        row: the shape of a row.
        dtype: of the rows.
    """

    shape = tf.TensorShape([])

    def __init__(self, row: Any, dtype: Any):
        self.row, self.dtype = row, dtype
        self.start = tf.raw_ops.EmptyTensorList(
            element_shape=[-1, *row], max_num_elements=-1, element_dtype=dtype
        )

    def put(self, rows: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept` with these rows behind it."""
        return tf.raw_ops.TensorListPushBack(input_handle=kept, tensor=rows)

    def rows(self, kept: tf.Tensor) -> tf.Tensor:
        """All rows, those that were put first before the others."""
        rows, _ = tf.raw_ops.TensorListConcatV2(
            input_handle=kept,
            element_shape=[-1, *self.row],
            leading_dims=tf.zeros([0], tf.int64),
            element_dtype=self.dtype,
        )
        return rows
