"""Rows of unequal length through a recurrent ONNX op: in groups, each as long as its own longest.

onnxruntime runs every row of a GRU or LSTM for as many steps as the longest row has, whatever
`sequence_lens` says: with lengths spread evenly, half of the work is for nothing. A step of a row
costs about the same in a batch of 4 as in one of 32, and twice as much alone. So the rows are
ordered by length and cut into groups of neighbours, and each group has an op to itself. Few rows,
or few steps, go through one op: there the groups would cost more than they save.

Rows that are there only to fill the last group, and the one row that stands in for a batch of
none (on which onnxruntime ends the process), are a row of no steps, which has the index `batch`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from keras_blocks.export.tracing.stand_ins import onnx_node
from keras_blocks.size_sums import sum_of_sizes

# Each op packs a copy of the weights for itself, so more groups cost memory. Eight are 10 to 15%
# quicker than four at hidden size 128.
GROUPS = 8
# A step of a row is dearer in a group of fewer. Groups that are left without rows take 4 us each.
WORTH_FILLING = 4
# Groups run when they save more than this many rows of the longest's length and this many steps.
# Where all rows have one length they cost about a tenth more than one op.
FEWEST_ROWS, FEWEST_STEPS = 2, 128

# From inputs (time, rows, features), lengths (rows,) and initial states, each (directions, rows,
# units), to outputs (time, directions, rows, units) and the last states.
NativeOp = Callable[[tf.Tensor, tf.Tensor, list[tf.Tensor]], list[tf.Tensor]]


@dataclass(frozen=True)
class Rows:
    """Rows that stand one after another in one tensor.

    Args:
        values: (steps, features).
        lengths: int64 (batch,), how many steps each row has.
    """

    values: tf.Tensor
    lengths: tf.Tensor


@dataclass(frozen=True)
class Outputs:
    """What the ops gave.

    Args:
        flat: (places, units), one place for each step, direction and row; zeros in the last.
        first: int64 (batch,), the place of each row's first step in the forward direction.
        width: int64, how many places lie between the directions of a step.
        directions: int, 1 or 2.
    """

    flat: tf.Tensor
    first: tf.Tensor
    width: tf.Tensor
    directions: int

    @property
    def stride(self) -> tf.Tensor:
        """How many places lie between two steps of a row."""
        return self.width * self.directions

    def read(self, place: tf.Tensor, given: tf.Tensor | None = None) -> tf.Tensor:
        """The outputs at these places of the forward direction, the directions side by side;
        zeros where `given` is False."""
        if self.directions == 2:
            place = tf.expand_dims(place, -1) + self.width * tf.range(2, dtype=tf.int64)
            given = given if given is None else tf.expand_dims(given, -1)
        if given is not None:
            place = tf.where(given, place, _size(self.flat) - 1)
        values = tf.gather(self.flat, place)
        if self.directions == 1:
            return values
        joined = 2 * self.flat.shape[1]
        shape = tf.concat([tf.shape(place)[:-1], [joined]], axis=0)
        return tf.ensure_shape(tf.reshape(values, shape), [*place.shape[:-1], joined])


def run_in_groups(
    op: NativeOp, rows: Rows, initial: list[tf.Tensor], directions: int, sequences: bool
) -> tuple[Outputs | None, list[tf.Tensor]]:
    """Runs the op over rows of unequal length.

    Returns:
        The outputs, None where no `sequences` are wanted, and the states, each (directions, batch,
        units).
    """
    (batch,) = onnx_node("Size", [rows.lengths], [tf.TensorSpec([], tf.int64)])
    padded = Rows(rows.values, _one_more(rows.lengths))
    # No row is a longest row too.
    longest, kept = tf.reduce_max(padded.lengths), sum_of_sizes(rows.lengths)
    arguments = (op, padded, batch, initial, directions, sequences)
    results = tf.cond(
        (batch - FEWEST_ROWS) * longest > kept + FEWEST_STEPS,
        lambda: _in_groups(*arguments),
        lambda: _at_once(*arguments),
    )
    if not sequences:
        return None, results
    *states, flat, first, width = results
    return Outputs(flat, first, width, directions), states


def _at_once(
    op: NativeOp,
    rows: Rows,
    batch: tf.Tensor,
    initial: list[tf.Tensor],
    directions: int,
    sequences: bool,
) -> list[tf.Tensor]:
    """One op; works for no rows, and for rows without steps."""
    width = tf.maximum(batch, 1)
    seats, present = tf.range(width), tf.range(batch)
    lengths = tf.gather(rows.lengths, seats)
    places = tf.cumsum(lengths, exclusive=True) + tf.expand_dims(
        tf.range(tf.maximum(tf.reduce_max(lengths), 1)), 1
    )
    inputs = tf.gather(_one_more(rows.values), tf.minimum(places, _size(rows.values)))
    before = [tf.gather(_one_more(state, axis=1), seats, axis=1) for state in initial]
    every, *states = op(inputs, tf.cast(lengths, tf.int32), before)
    states = [tf.gather(state, present, axis=1) for state in states]
    if not sequences:
        return states
    return [*states, _one_more(tf.reshape(every, [-1, every.shape[3]])), present, width]


def _in_groups(
    op: NativeOp,
    rows: Rows,
    batch: tf.Tensor,
    initial: list[tf.Tensor],
    directions: int,
    sequences: bool,
) -> list[tf.Tensor]:
    """An op for each group; there must be a step."""
    lengths, order = _sorted(rows.lengths, largest=True)
    narrow = (batch + GROUPS - 1) // GROUPS
    wide = tf.maximum(narrow, WORTH_FILLING)
    width = tf.where(_cost(lengths, wide) < _cost(lengths, narrow), wide, narrow)
    # Where the groups have more seats than there are rows, the row of no steps takes them.
    seats = tf.minimum(tf.range(GROUPS * width), batch)
    lengths, order = tf.gather(lengths, seats), tf.gather(order, seats)
    longest = tf.maximum(tf.reshape(lengths, [GROUPS, -1])[:, 0], 1)
    starts = tf.gather(tf.cumsum(rows.lengths, exclusive=True), order)
    places = starts + tf.expand_dims(tf.range(longest[0]), 1)
    # Behind a row's end any step will do, if it exists.
    places = tf.minimum(places, _size(rows.values) - 1)
    before = [tf.gather(_one_more(state, axis=1), order, axis=1) for state in initial]
    groups = zip(
        tf.split(longest, GROUPS),
        tf.split(places, GROUPS, axis=1),
        tf.split(tf.cast(lengths, tf.int32), GROUPS),
        *(tf.split(state, GROUPS, axis=1) for state in before),
        strict=True,
    )
    results = [
        op(tf.gather(rows.values, place[: time[0]]), length, own)
        for time, place, length, *own in groups
    ]
    every, *states = zip(*results, strict=True)
    # Where each row sits.
    _, seat = _sorted(order, largest=False, count=batch)
    states = [tf.gather(tf.concat(state, axis=1), seat, axis=1) for state in states]
    if not sequences:
        return states
    offset = tf.cumsum(longest, exclusive=True) * (directions * width)
    first = tf.reshape(tf.expand_dims(offset, 1) + tf.range(width), [-1])
    units = every[0].shape[3]
    flat = [tf.reshape(output, [-1, units]) for output in every]
    return [*states, tf.concat([*flat, tf.zeros([1, units])], 0), tf.gather(first, seat), width]


def _cost(lengths: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """What it takes to run rows, the longest first, in groups of this many: a step of 4 rows takes
    about twice the time of a step of one."""
    bounds = tf.constant([0], tf.int64), tf.constant([tf.int64.max]), tf.constant([0], tf.int64)
    given = [lengths, *bounds, tf.reshape(width, [1])]
    (longest,) = onnx_node("Slice", given, [tf.TensorSpec([None], tf.int64)])
    return sum_of_sizes(longest) * (width + 2)


def _size(tensor: tf.Tensor) -> tf.Tensor:
    """The first dim, as (1,)."""
    (size,) = onnx_node("Shape", [tensor], [tf.TensorSpec([1], tf.int64)], start=0, end=1)
    return size


def _one_more(tensor: tf.Tensor, axis: int = 0) -> tf.Tensor:
    """With a row of zeros behind the last."""
    shape = [1 if i == axis else size for i, size in enumerate(tensor.shape)]
    return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=axis)


def _sorted(
    values: tf.Tensor, largest: bool, count: tf.Tensor | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sorted int64 (size,) values and their indices; equal values keep their order."""
    count = _size(values) if count is None else tf.reshape(count, [1])
    shape = tf.TensorSpec([None], tf.int64)
    ordered, order = onnx_node(
        "TopK", [values, count], [shape, shape], largest=int(largest), sorted=1
    )
    return ordered, order
