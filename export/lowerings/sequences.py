"""Sequences in the form that the recurrent ONNX ops take, and their outputs back.

The ops take (time, batch, features) and the length of each row, and give (time, directions, batch,
units) with zeros behind each row's end. Keras masks any step: the state and the output stand still
there. So the steps that are kept move to the front, and each step of the result is read from where
its own went, or from the one it repeats. Steps that are to be zero read the step behind the row's
end; there is one, because the row has a masked step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_blocks.export.standins import onnx_node
from keras_blocks.ragged import from_row_splits


class Even:
    """Rows of one length; there are as many as the op sees."""

    def trimmed(self, states: tf.Tensor) -> tf.Tensor:
        """States as they come out."""
        return states

    def padded(self, states: tf.Tensor) -> tf.Tensor:
        """States as they go in."""
        return states


@dataclass(frozen=True)
class Dense(Even):
    """Rows of the same length, no step masked."""

    inputs: tf.Tensor
    lengths = None

    def time_major(self) -> tf.Tensor:
        """(time, batch, features)."""
        return tf.transpose(self.inputs, [1, 0, 2])

    def sequences(self, outputs: tf.Tensor, reverse: bool, hold: bool) -> tf.Tensor:
        """(batch, time, directions * units), in the order of the input."""
        batch_major = tf.transpose(outputs, [2, 0, 1, 3])
        if outputs.shape[1] == 1:
            return tf.squeeze(batch_major, [2])
        return _join_directions(batch_major)


@dataclass(frozen=True)
class Masked(Even):
    """Rows of the same length with a mask (batch, time)."""

    inputs: tf.Tensor
    mask: tf.Tensor

    @property
    def lengths(self) -> tf.Tensor:
        """How many steps of each row are kept."""
        return tf.reduce_sum(tf.cast(self.mask, tf.int32), axis=1)

    def time_major(self) -> tf.Tensor:
        """(time, batch, features), the kept steps in front."""
        batch, time = _sizes(self.mask)
        order = _kept_first(tf.transpose(self.mask), time)
        flat = tf.reshape(self.inputs, [-1, self.inputs.shape[2]])
        return tf.gather(flat, order + time * tf.range(batch))

    def sequences(self, outputs: tf.Tensor, reverse: bool, hold: bool) -> tf.Tensor:
        """(batch, time, directions * units); with `hold` a masked step repeats the one before it
        in the direction of the run, without it is zero."""
        batch, _ = _sizes(self.mask)
        count = tf.cast(self.mask, tf.int64)
        before = tf.cumsum(count, axis=1, exclusive=True)
        behind_end = tf.reduce_sum(count, axis=1, keepdims=True)
        if not hold:
            step = tf.where(self.mask, before, behind_end)
        elif reverse:
            # The next kept step, or the one behind the end.
            step = before
        else:
            upto = before + count
            step = tf.where(upto > 0, upto - 1, behind_end)
        return _read_steps(outputs, step, tf.range(batch)[:, tf.newaxis])


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length.

    onnxruntime ends the process on a batch of no rows, so that one runs as a batch of one empty
    row, which `trimmed` takes off again.
    """

    inputs: tf.RaggedTensor

    @property
    def batch(self) -> tf.Tensor:
        """The number of rows."""
        return tf.shape(self.inputs.row_splits, out_type=tf.int64)[0] - 1

    @property
    def starts(self) -> tf.Tensor:
        """Where each row starts; [0] for a batch of no rows."""
        return self.inputs.row_splits[: tf.maximum(self.batch, 1)]

    @property
    def lengths(self) -> tf.Tensor:
        """The length of each row; [0] for a batch of no rows."""
        ends = self.inputs.row_splits[tf.minimum(self.batch, 1) :]
        return tf.cast(ends - self.starts, tf.int32)

    def time_major(self) -> tf.Tensor:
        """(longest, batch, features); steps behind a row's end hold anything."""
        values, row_splits = self.inputs.values, self.inputs.row_splits
        longest = tf.maximum(tf.cast(tf.reduce_max(self.lengths), tf.int64), 1)
        index = self.starts + tf.range(longest)[:, tf.newaxis]
        # One step more, so that there is something to read where there are no values at all.
        padded = tf.concat([values, tf.zeros([1, values.shape[1]], values.dtype)], axis=0)
        return tf.gather(padded, tf.minimum(index, row_splits[-1]))

    def sequences(self, outputs: tf.Tensor, reverse: bool, hold: bool) -> tf.RaggedTensor:
        """Ragged (batch, time, directions * units), in the order of the input."""
        time = tf.range(tf.shape(outputs, out_type=tf.int64)[0])
        # In the order of the values: row by row.
        inside = tf.where(time < tf.cast(self.lengths, tf.int64)[:, tf.newaxis])
        row, step = tf.unstack(inside, axis=1)
        return from_row_splits(_read_steps(outputs, step, row), self.inputs.row_splits)

    def trimmed(self, states: tf.Tensor) -> tf.Tensor:
        """(directions, batch, units) for the rows that there are."""
        return states[:, : self.batch]

    def padded(self, states: tf.Tensor) -> tf.Tensor:
        """The inverse of `trimmed`."""
        missing = tf.maximum(1 - self.batch, 0)
        return tf.pad(states, [[0, 0], [0, missing], [0, 0]])


Sequences = Dense | Masked | Ragged


def sequences_of(inputs: Any, mask: Any) -> Sequences:
    """The form of the inputs, as float32: the ops know no other floats."""
    if isinstance(inputs, tf.RaggedTensor):
        values = tf.cast(inputs.values, tf.float32)
        return Ragged(from_row_splits(values, tf.cast(inputs.row_splits, tf.int64)))
    inputs = tf.cast(inputs, tf.float32)
    return Dense(inputs) if mask is None else Masked(inputs, tf.cast(mask, tf.bool))


def _sizes(tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(tensor, out_type=tf.int64)
    return shape[0], shape[1]


def _kept_first(mask: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
    """The steps of each column in their order, the kept ones before the masked ones."""
    shape = tf.TensorSpec(mask.shape, tf.float32), tf.TensorSpec(mask.shape, tf.int64)
    # Equal values keep their order.
    _, order = onnx_node(
        "TopK", [tf.cast(mask, tf.float32), tf.reshape(time, [1])], shape, axis=0, sorted=1
    )
    return order


def _read_steps(outputs: tf.Tensor, step: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """outputs[step, :, row] with the directions side by side."""
    directions, units = outputs.shape[1], outputs.shape[3]
    batch = tf.shape(outputs, out_type=tf.int64)[2]
    flat = tf.reshape(outputs, [-1, units])
    if directions == 1:
        return tf.gather(flat, step * batch + row)
    first = (step * directions) * batch + row
    index = first[..., tf.newaxis] + batch * tf.range(directions, dtype=tf.int64)
    return _join_directions(tf.gather(flat, index))


def _join_directions(tensor: tf.Tensor) -> tf.Tensor:
    shape = tf.shape(tensor, out_type=tf.int64)
    joined = tensor.shape[-2] * tensor.shape[-1]
    result = tf.reshape(tensor, tf.concat([shape[:-2], [joined]], axis=0))
    return tf.ensure_shape(result, [*tensor.shape[:-2], joined])
