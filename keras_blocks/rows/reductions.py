"""Ragged rows reduced along time: their sums, maxima and softmax, each row by itself.

Rows of one length are a dense tensor, and that is quicker to reduce: `call_by_rows` takes that way
where the lengths of a batch allow it. Else the values are reduced as they are, without padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.ragged import to_padded, unpad_like


def softmax_rows(x: tf.RaggedTensor) -> tf.RaggedTensor:
    """The softmax along time within each row; an empty row stays empty."""
    # Next to any other logit, the least number there is gets no share.
    padded, steps = to_padded(x, fill=x.dtype.min)
    return unpad_like(x, tf.nn.softmax(padded, axis=1), steps)


def sum_rows(x: tf.RaggedTensor) -> tf.Tensor:
    """The sum of the steps of each row, (batch, ...); of an empty row 0."""
    return _REDUCTIONS.get().sum(x)


def max_rows(x: tf.RaggedTensor) -> tf.Tensor:
    """The greatest of the steps of each row, (batch, ...); of an empty row 0."""
    return _REDUCTIONS.get().max(x)


def index_steps(x: tf.RaggedTensor) -> tf.Tensor:
    """For each step of all rows, which one of its row it is, from 0 on: (steps,)."""
    return tf.range(x.row_splits[-1]) - tf.gather(x.row_starts(), x.value_rowids())


def call_by_rows(
    inputs: Sequence[tf.RaggedTensor],
    on_dense: Callable[..., Any],
    on_ragged: Callable[..., Any],
) -> Any:
    """One of two functions that compute the same: for rows of one length, and for any rows.

    Args:
        inputs: one or more ragged tensors, each (batch, time, ...).
        on_dense: takes each as (batch, time, ...) with a time of at least 1.
        on_ragged: takes the ragged tensors.
    """

    def dense() -> Any:
        return on_dense(*map(stack_rows, inputs))

    def ragged() -> Any:
        return on_ragged(*inputs)

    splits = [tf.get_static_value(x.row_splits) for x in inputs]
    if all(known is not None for known in splits):
        # TensorFlow would refuse a branch that does not fit the rows, though it is not taken.
        lengths = [set(np.diff(known).tolist()) for known in splits]
        return dense() if all(len(n) == 1 and 0 not in n for n in lengths) else ragged()
    return tf.cond(tf.reduce_all([_has_equal_rows(x) for x in inputs]), dense, ragged)


def _has_equal_rows(x: tf.RaggedTensor) -> tf.Tensor:
    """Whether all rows have as many steps, and at least one."""
    steps = x.row_splits[-1]
    return (steps > 0) & (steps == x.nrows() * longest_row(x))


def longest_row(x: tf.RaggedTensor) -> tf.Tensor:
    """How many steps the longest row has; 0 if there is none."""
    lengths = x.row_lengths()
    return tf.reduce_max(tf.concat([lengths, tf.zeros([1], lengths.dtype)], axis=0))


def stack_rows(x: tf.RaggedTensor) -> tf.Tensor:
    """Rows of one length as (batch, time, ...)."""
    leading = tf.stack([x.nrows(), longest_row(x)])
    inner = tf.shape(x.values, leading.dtype)[1:]
    stacked = tf.reshape(x.values, tf.concat([leading, inner], axis=0))
    return tf.ensure_shape(stacked, [None, None, *x.values.shape[1:]])


class RowReductions:
    """How rows are reduced: here by TensorFlow's operations on sorted segments."""

    def sum(self, x: tf.RaggedTensor) -> tf.Tensor:
        """See `sum_rows`."""
        return self._reduce(tf.math.segment_sum, x)

    def max(self, x: tf.RaggedTensor) -> tf.Tensor:
        """See `max_rows`."""
        return self._reduce(tf.math.segment_max, x)

    def _reduce(self, segment_op: Callable[..., tf.Tensor], x: tf.RaggedTensor) -> tf.Tensor:
        reduced = segment_op(x.values, x.value_rowids())
        # The op ends with the last row that has a step.
        missing = x.nrows() - tf.shape(reduced, x.row_splits.dtype)[0]
        return tf.pad(reduced, [(0, missing), *((0, 0) for _ in x.shape[2:])])


_TENSORFLOW = RowReductions()
_REDUCTIONS: ContextVar[RowReductions] = ContextVar("row_reductions", default=_TENSORFLOW)


@contextmanager
def use_row_reductions(reductions: RowReductions) -> Iterator[None]:
    """Within the context, rows are reduced in another way: an export has its own."""
    token = _REDUCTIONS.set(reductions)
    try:
        yield
    finally:
        _REDUCTIONS.reset(token)
