"""Sequences in the form that the recurrent ONNX ops take, and their outputs back.

The ops take (time, batch, features) and the length of each row, and give (time, directions, batch,
units). Keras masks any step: the state and the output stand still there. So a masked batch runs as
rows of the steps that are kept, and each step of the result is read from where its own went, or
from the one it repeats, or is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_blocks.export.lowerings.recurrent.row_groups import Outputs, Rows
from keras_blocks.export.tracing.stand_ins import onnx_node


@dataclass(frozen=True)
class Dense:
    """Rows of the same length, no step masked."""

    inputs: tf.Tensor

    def time_major(self) -> tf.Tensor:
        """(time, batch, features)."""
        return tf.transpose(self.inputs, [1, 0, 2])

    def sequences(self, outputs: tf.Tensor, backwards: bool) -> tf.Tensor:
        """(batch, time, directions * units), in the order of the input or back to front."""
        batch_major = tf.transpose(outputs, [2, 0, 1, 3])
        directions, units = outputs.shape[1], outputs.shape[3]
        shape = tf.concat([tf.shape(batch_major)[:2], [directions * units]], axis=0)
        joined = tf.squeeze(batch_major, [2]) if directions == 1 else tf.reshape(batch_major, shape)
        joined = tf.ensure_shape(joined, [*batch_major.shape[:2], directions * units])
        return joined[:, ::-1] if backwards else joined


@dataclass(frozen=True)
class Masked:
    """Rows of the same length with a mask (batch, time)."""

    inputs: tf.Tensor
    mask: tf.Tensor

    def rows(self) -> Rows:
        """The steps that are kept."""
        kept = _true_places(self.mask)
        flat = tf.reshape(self.inputs, [-1, self.inputs.shape[2]])
        lengths = tf.reduce_sum(tf.cast(self.mask, tf.int64), axis=1)
        return Rows(tf.gather(flat, kept), lengths)

    def sequences(self, outputs: Outputs, rows: Rows, backwards: bool, hold: bool) -> tf.Tensor:
        """(batch, time, directions * units), in the order of the input or back to front.

        With `hold` a masked step repeats the one before it in the direction of the run; else it is
        zero, as are those that have none before them.
        """
        upto = tf.cumsum(tf.cast(self.mask, tf.int64), axis=1)
        if not hold:
            given, step = self.mask, upto - 1
        elif backwards:
            # Of the kept steps the next one.
            step = tf.cumsum(tf.cast(self.mask, tf.int64), axis=1, exclusive=True)
            given = step < tf.expand_dims(rows.lengths, 1)
        else:
            given, step = upto > 0, upto - 1
        if backwards:
            given, step = given[:, ::-1], step[:, ::-1]
        return outputs.read(tf.expand_dims(outputs.first, 1) + step * outputs.stride, given)


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length."""

    inputs: tf.RaggedTensor

    def rows(self) -> Rows:
        """The rows as they are."""
        splits = self.inputs.row_splits
        return Rows(self.inputs.values, splits[1:] - splits[:-1])

    def sequences(
        self, outputs: Outputs, rows: Rows, backwards: bool, hold: bool
    ) -> tf.RaggedTensor:
        """Ragged (batch, time, directions * units), in the order of the input or back to front."""
        # No row is a longest row too.
        longest = tf.reduce_max(tf.concat([rows.lengths, [0]], axis=0))
        lengths, step = tf.expand_dims(rows.lengths, 1), tf.range(longest)
        inside = _true_places(step < lengths)
        if backwards:
            step = lengths - 1 - step
        places = tf.expand_dims(outputs.first, 1) + step * outputs.stride
        # In the order of the values: row by row.
        values = outputs.read(tf.gather(tf.reshape(places, [-1]), inside))
        return self.inputs.with_values(values)


Sequences = Dense | Masked | Ragged


def sequences_of(inputs: Any, mask: Any) -> Sequences:
    """The form of the inputs, as float32: the ops know no other floats."""
    if isinstance(inputs, tf.RaggedTensor):
        inputs = inputs.with_values(tf.cast(inputs.values, tf.float32))
        return Ragged(inputs.with_row_splits_dtype(tf.int64))
    inputs = tf.cast(inputs, tf.float32)
    return Dense(inputs) if mask is None else Masked(inputs, tf.cast(mask, tf.bool))


def _true_places(mask: tf.Tensor) -> tf.Tensor:
    """The places where the flattened mask is True, as (places,)."""
    spec = tf.TensorSpec([1, None], tf.int64)
    (places,) = onnx_node("NonZero", [tf.reshape(mask, [-1])], [spec])
    return tf.reshape(places, [-1])
