"""Ragged rows in groups of like length, each padded to the longest of its own.

What takes time and memory by the square of a row's length, as attention does, wastes most of both
where all rows are padded to the longest. Rows that are sorted by length and cut into a few groups
hold little padding, and each group is one dense computation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_blocks.rows.reductions import index_steps

GROUPS = 4
"""With lengths spread evenly eight would pad a tenth less, and take twice the operations."""

Compute = Callable[..., tf.Tensor]
"""Takes the indices of some rows, and for each ragged tensor their padded steps (rows, time, ...)
and the mask (rows, time); gives (rows, time of the first, ...)."""


def compute_in_groups(inputs: Sequence[tf.RaggedTensor], compute: Compute) -> tf.Tensor:
    """Runs a function on groups of rows of like length.

    Args:
        inputs: ragged tensors of as many rows; padding is 0.
        compute: the function; it must give for a row what it would give for that row alone.

    Returns:
        The values of what it gives, with the rows of the first input.
    """
    first = inputs[0]
    lengths = functools.reduce(tf.add, [x.row_lengths() for x in inputs])
    order = tf.argsort(lengths, stable=True)
    rows = tf.shape(order, first.row_splits.dtype)[0]
    size = (rows + GROUPS - 1) // GROUPS
    padded = [_PaddedRows(x) for x in inputs]
    outputs, begins, used = [], [], tf.zeros([], rows.dtype)
    for group in range(GROUPS):
        members = order[group * size : (group + 1) * size]
        parts = [part for x in padded for part in x.take(members)]
        output = compute(members, *parts)
        count, time = tf.unstack(tf.shape(output, rows.dtype)[:2])
        outputs.append(_flatten_steps(output))
        begins.append(used + time * tf.range(count))
        used += count * time
    begin = tf.gather(tf.concat(begins, axis=0), tf.argsort(order))
    places = tf.gather(begin, first.value_rowids()) + index_steps(first)
    return tf.gather(tf.concat(outputs, axis=0), places)


class _PaddedRows:
    """Any rows of a ragged tensor, padded with 0."""

    def __init__(self, x: tf.RaggedTensor):
        self.lengths, self.starts = x.row_lengths(), x.row_starts()
        self.past_end = tf.shape(x.values, x.row_splits.dtype)[0]
        zero = tf.zeros(tf.concat([[1], tf.shape(x.values)[1:]], axis=0), x.dtype)
        self.values = tf.concat([x.values, zero], axis=0)

    def take(self, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(rows, time, ...) with a time of at least 2, and the mask (rows, time)."""
        lengths = tf.gather(self.lengths, rows)[:, tf.newaxis]
        # No rows have a longest too; and of a softmax over one step Keras warns.
        longest = tf.reduce_max(tf.concat([lengths, tf.constant([[2]], lengths.dtype)], axis=0))
        steps = tf.range(longest)
        mask = steps < lengths
        places = tf.where(mask, tf.gather(self.starts, rows)[:, tf.newaxis] + steps, self.past_end)
        return tf.gather(self.values, places), mask


def _flatten_steps(x: tf.Tensor) -> tf.Tensor:
    """(rows, time, ...) -> (rows * time, ...)."""
    inner = x.shape[2:]
    sizes = inner if inner.is_fully_defined() else tf.shape(x)[2:]
    flat = tf.reshape(x, tf.concat([[-1], sizes], axis=0))
    return tf.ensure_shape(flat, [None, *inner])
