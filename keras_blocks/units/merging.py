"""Several inputs as one: sums, products and the like, step by step, on ragged rows too."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, holds_ragged, is_ragged


class _Merge(AcceptsRagged):
    """Mixin that goes in front of a merging layer of Keras: rows are merged by their values."""

    axis = -1

    def call(self, inputs: Any) -> Any:
        """Merges."""
        if not holds_ragged(inputs):
            return super().call(inputs)  # type: ignore[misc]
        rows = next(x for x in inputs if is_ragged(x))
        rank = len(rows.shape)
        if not -rank <= self.axis < rank or self.axis % rank < 2:
            raise ValueError(
                f"{type(self).__name__}: ragged inputs of rank {rank} are merged within their "
                f"steps, along axis 2 to {rank - 1} or -1. Received: axis={self.axis}."
            )
        values = [self._values(x, rows) for x in inputs]
        axis, self.axis = self.axis, self.axis if self.axis < 0 else self.axis - 1
        try:
            return rows.with_values(self.merge_values(values))
        finally:
            self.axis = axis

    def merge_values(self, values: list[tf.Tensor]) -> tf.Tensor:
        """What becomes of the steps of all rows, (steps, ...) in each input."""
        return self._merge_function(values)  # type: ignore[attr-defined]

    def _values(self, x: Any, rows: tf.RaggedTensor) -> tf.Tensor:
        """What each step of the rows meets in this input."""
        name = type(self).__name__
        if is_ragged(x):
            if x.row_splits is not rows.row_splits:
                tf.debugging.assert_equal(
                    x.row_splits,
                    rows.row_splits,
                    message=f"{name}: ragged inputs must have rows of the same lengths.",
                )
            return x.values
        if len(x.shape) == len(rows.shape) and x.shape[1] == 1:
            x = tf.squeeze(x, 1)
        if len(x.shape) >= len(rows.shape):
            raise ValueError(
                f"{name}: beside a ragged input of rank {len(rows.shape)} a dense one is one "
                f"vector for each row, (batch, ...) or (batch, 1, ...). Received a dense input of "
                f"shape {tuple(x.shape)}. keras_blocks.ToRagged makes rows of a dense tensor."
            )
        return tf.gather(x, rows.value_rowids())


@keras.saving.register_keras_serializable("keras_blocks")
class Add(_Merge, keras.layers.Add):
    """The sum of the inputs, as a residual connection has it.

    y = x[0] + x[1] + ...

    As `keras.layers.Add`, and for ragged inputs too, whose rows must have the same lengths. A dense
    input (batch, features) or (batch, 1, features) beside them is met by every step of its row.

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Input shape:
        A list of tensors whose shapes broadcast, dense or ragged.

    Output shape:
        What they broadcast to, ragged where an input is.

    Raises:
        ValueError: a dense input beside a ragged one has an axis of time.
        tf.errors.InvalidArgumentError: the rows of ragged inputs differ in length.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Add()([rows, rows]).to_list()
        [[[2.0], [4.0]], []]
    """

    def merge_values(self, values: list[tf.Tensor]) -> tf.Tensor:
        """Their sum."""
        # keras.ops.add takes (0, features) for a bias, and fails.
        return functools.reduce(tf.add, values)


@keras.saving.register_keras_serializable("keras_blocks")
class Subtract(_Merge, keras.layers.Subtract):
    """The first input less the second; dense and ragged inputs as in `Add`.

    y = x[0] - x[1]

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Subtract()([rows, tf.constant([[1.0], [5.0]])]).to_list()
        [[[0.0], [1.0]], []]
    """


@keras.saving.register_keras_serializable("keras_blocks")
class Multiply(_Merge, keras.layers.Multiply):
    """The product of the inputs; dense and ragged inputs as in `Add`.

    y = x[0] * x[1] * ...

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Multiply()([rows, rows]).to_list()
        [[[1.0], [4.0]], []]
    """


@keras.saving.register_keras_serializable("keras_blocks")
class Average(_Merge, keras.layers.Average):
    """The mean of the inputs; dense and ragged inputs as in `Add`.

    y = (x[0] + x[1] + ...) / number of inputs

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Average()([rows, tf.constant([[3.0], [5.0]])]).to_list()
        [[[2.0], [2.5]], []]
    """

    def merge_values(self, values: list[tf.Tensor]) -> tf.Tensor:
        """Their mean."""
        return functools.reduce(tf.add, values) / len(values)


@keras.saving.register_keras_serializable("keras_blocks")
class Maximum(_Merge, keras.layers.Maximum):
    """The greatest of the inputs, element by element; dense and ragged inputs as in `Add`.

    y = max(x[0], x[1], ...)

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Maximum()([rows, tf.constant([[1.5], [5.0]])]).to_list()
        [[[1.5], [2.0]], []]
    """


@keras.saving.register_keras_serializable("keras_blocks")
class Minimum(_Merge, keras.layers.Minimum):
    """The least of the inputs, element by element; dense and ragged inputs as in `Add`.

    y = min(x[0], x[1], ...)

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Minimum()([rows, tf.constant([[1.5], [5.0]])]).to_list()
        [[[1.0], [1.5]], []]
    """


@keras.saving.register_keras_serializable("keras_blocks")
class Concatenate(_Merge, keras.layers.Concatenate):
    """The vectors of the inputs one after another; dense and ragged inputs as in `Add`.

    y = [x[0]; x[1]; ...]

    Args:
        axis: int, the axis to put them together along; of ragged inputs one within the steps.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], []], inner_shape=(1,))
        >>> kb.Concatenate()([rows, rows]).to_list()
        [[[1.0, 1.0], [2.0, 2.0]], []]
    """

    def build(self, input_shape: Any) -> None:
        """Checks the shapes, where each input has as many axes."""
        if len({len(shape) for shape in input_shape}) == 1:
            super().build(input_shape)
