"""Ragged sequences: a batch of rows of unequal length, and its dense forms.

A ragged tensor is its flat `values`, all rows after one another, and `row_splits`: row i is
`values[row_splits[i]:row_splits[i + 1]]`. Everything here is written in operations that convert to
ONNX (`RaggedTensor.to_tensor` does not), and this is the only place that pads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.errors import KerasBlocksError
from keras_blocks.refusals import KnowsTwins

if keras.backend.backend() != "tensorflow":
    raise KerasBlocksError(
        f"keras_blocks runs on Keras's TensorFlow backend, and the backend here is "
        f"'{keras.backend.backend()}'. Set the environment variable KERAS_BACKEND=tensorflow."
    )


def is_ragged(x: Any) -> bool:
    """Whether `x` is a ragged tensor, real or symbolic."""
    return isinstance(x, tf.RaggedTensor) or (isinstance(x, keras.KerasTensor) and x.ragged)


def holds_ragged(structure: Any) -> bool:
    """Whether a tensor, or any of a list or dictionary of them, is ragged."""
    return any(is_ragged(x) for x in keras.tree.flatten(structure))


def ragged_spec(shape: tuple[int | None, ...], dtype: str) -> keras.KerasTensor:
    """The symbolic ragged tensor of a shape (batch, time, ...)."""
    return keras.KerasTensor(shape, dtype=dtype, ragged=True)


def from_row_splits(values: tf.Tensor, row_splits: tf.Tensor) -> tf.RaggedTensor:
    """The ragged tensor of these parts, unchecked: for parts that are right by construction."""
    return tf.RaggedTensor.from_row_splits(values, row_splits, validate=False)


def map_values(function: Callable[[tf.Tensor], tf.Tensor], x: tf.RaggedTensor) -> tf.RaggedTensor:
    """Applies a function of vectors to every step of every row; it must keep the first axis."""
    # TensorFlow adds and multiplies ragged tensors without a comparison of their rows, and in a
    # form that converts, only where they share one row partition; so does whatever keeps the rows.
    return x.with_values(function(x.values))


def to_padded(
    x: tf.RaggedTensor,
    at_least: int | tf.Tensor = 0,
    *,
    fill: float = 0,
    offsets: tf.Tensor | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """A ragged tensor as (batch, time, ...), and the mask (batch, time) of the steps of the rows.

    Row i stands at the front, or behind `offsets[i]` steps of padding; padding holds `fill`. Time
    is as long as the longest row with its offset, and no shorter than `at_least`.
    """
    lengths = x.row_lengths()
    starts = tf.zeros_like(lengths) if offsets is None else offsets
    # `at_least` counts as a row, so that an empty batch has a longest row too.
    ends = tf.concat([starts + lengths, [tf.cast(at_least, lengths.dtype)]], axis=0)
    steps = tf.range(tf.reduce_max(ends))[tf.newaxis, :] - starts[:, tf.newaxis]
    mask = (steps >= 0) & (steps < lengths[:, tf.newaxis])
    # Padded steps read the one that is put behind the last value.
    past_end = tf.shape(x.values, out_type=lengths.dtype)[0]
    indices = tf.where(mask, x.row_starts()[:, tf.newaxis] + steps, past_end)
    padding = tf.fill(tf.concat([[1], tf.shape(x.values)[1:]], axis=0), tf.cast(fill, x.dtype))
    return tf.gather(tf.concat([x.values, padding], axis=0), indices), mask


def from_padded(dense: tf.Tensor, mask: tf.Tensor, row_splits: tf.Tensor) -> tf.RaggedTensor:
    """Keeps the steps of (batch, time, ...) where the mask is set, as rows of these splits."""
    return from_row_splits(tf.gather_nd(dense, tf.where(mask)), row_splits)


def unpad_like(x: tf.RaggedTensor, dense: tf.Tensor, mask: tf.Tensor) -> tf.RaggedTensor:
    """The inverse of `to_padded`: (batch, time, ...) as rows like those of `x`."""
    return x.with_values(tf.gather_nd(dense, tf.where(mask)))


def from_dense(x: tf.Tensor, mask: tf.Tensor | None = None) -> tf.RaggedTensor:
    """The steps of (batch, time, ...) as rows: all of them, or those where the mask is set."""
    if mask is not None:
        mask = tf.cast(mask, tf.bool)
        ends = tf.cumsum(tf.reduce_sum(tf.cast(mask, tf.int64), axis=1))
        return from_padded(x, mask, tf.concat([tf.zeros([1], tf.int64), ends], axis=0))
    sizes = tf.shape(x, tf.int64)
    values = tf.reshape(x, tf.concat([[sizes[0] * sizes[1]], sizes[2:]], axis=0))
    values = tf.ensure_shape(values, [None, *x.shape[2:]])
    return from_row_splits(values, tf.range(sizes[0] + 1) * sizes[1])


class AcceptsRagged(KnowsTwins):
    """Mixin for layers whose `call` takes a ragged tensor where it takes a dense one.

    Goes in front of the layer's other base class. Symbolic calls on a ragged input give a ragged
    output of `compute_output_shape`, or a dense one where `ragged_output` is False.
    """

    ragged_output = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer as Keras does, apart from two things that Keras cannot do on ragged."""
        regularizer = self.activity_regularizer  # type: ignore[attr-defined]
        if regularizer is not None and self.ragged_output and holds_ragged((args, kwargs)):
            raise ValueError(
                f"{type(self).__name__}: an activity regularizer needs a dense output, and this "
                "one is ragged. Leave `activity_regularizer` out, or regularize the weights."
            )
        given = keras.tree.flatten((args, kwargs))
        for x in given:
            _refuse_two_ragged_axes(self, x)
        # Under mixed precision Keras casts inputs first; its cast of a symbol forgets `ragged`.
        self._convert_input_args = not any(
            isinstance(x, keras.KerasTensor) and x.ragged for x in given
        )
        return super().__call__(*args, **kwargs)  # type: ignore[misc]

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The symbolic output, ragged where the input is."""
        outputs = super().compute_output_spec(inputs, *args, **kwargs)  # type: ignore[misc]
        if not holds_ragged((inputs, args, kwargs)):
            return outputs
        # XLA has no ragged tensors; Keras looks here when a model is compiled.
        self.supports_jit = False
        return self.ragged_output_spec(outputs)

    def ragged_output_spec(self, outputs: Any) -> Any:
        """What becomes of the dense symbolic outputs when the input is ragged."""
        return ragged_spec(outputs.shape, outputs.dtype) if self.ragged_output else outputs


def _refuse_two_ragged_axes(layer: Any, inputs: Any) -> None:
    if isinstance(inputs, tf.RaggedTensor) and inputs.ragged_rank != 1:
        raise ValueError(
            f"{type(layer).__name__}: a ragged input must be ragged along axis 1 alone, (batch, "
            f"None, ...): of the axes behind it the size must be known. Received: "
            f"shape {inputs.shape} with {inputs.ragged_rank} ragged axes. "
            "Of nested lists tf.ragged.constant(rows, ragged_rank=1) makes one; "
            "`merge_dims(0, 1)` makes a row of each inner row, `merge_dims(1, 2)` one of all of "
            "them."
        )
