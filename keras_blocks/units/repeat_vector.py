"""A vector repeated: the same at every step of a row."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged


@keras.saving.register_keras_serializable("keras_blocks")
class RepeatVector(AcceptsRagged, keras.layers.Layer):
    """Repeats the vector of each row: a fixed number of times, or for every step of another input.

    y[t] = x, for t in 0 .. n - 1

    Args:
        n: int, how often; None to be called on a pair, the vectors and the rows whose steps say
            how often.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the vectors, or without `n` a list of them and of the rows.

    Input shape:
        (batch, features); the rows (batch, time, ...), dense or ragged.

    Output shape:
        (batch, n or time, features), ragged where the rows are.

    Raises:
        TypeError: `n` is no int.
        ValueError: `n` is not positive, or the input is no batch of vectors, or without `n` no
            pair.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], [], [[3.0]]], inner_shape=(1,))
        >>> kb.RepeatVector()([tf.constant([[5.0], [6.0], [7.0]]), rows]).to_list()
        [[[5.0], [5.0]], [], [[7.0]]]
    """

    def __init__(self, n: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if n is not None and (not isinstance(n, int) or isinstance(n, bool)):
            raise TypeError(f"RepeatVector: n must be an int or None. Received: n={n!r}.")
        if n is not None and n <= 0:
            raise ValueError(f"RepeatVector: n must be positive. Received: n={n}.")
        self.n = n
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Checks that the input is what `n` asks for."""
        self._shapes(input_shape)

    def call(self, inputs: Any) -> Any:
        """Repeats."""
        if self.n is not None:
            return keras.ops.repeat(keras.ops.expand_dims(inputs, 1), self.n, axis=1)
        vectors, rows = inputs
        if is_ragged(rows):
            return rows.with_values(tf.gather(vectors, rows.value_rowids()))
        return keras.ops.repeat(keras.ops.expand_dims(vectors, 1), keras.ops.shape(rows)[1], axis=1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """That of the rows; with `n` None."""
        return None if self.n is not None or mask is None else mask[1]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, n or time, features)."""
        (batch, features), time = self._shapes(input_shape)
        return batch, time, features

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "n": self.n}

    def _shapes(self, input_shape: Any) -> tuple[tuple[int | None, ...], int | None]:
        """The shape of the vectors, and how often they are repeated where that is known."""
        pair = bool(input_shape) and isinstance(input_shape[0], (list, tuple))
        if pair == (self.n is not None) or (pair and len(input_shape) != 2):
            expected = "a pair, [vectors, rows]" if self.n is None else "one tensor of vectors"
            raise ValueError(
                f"RepeatVector: with n={self.n} the input must be {expected}. Received an input "
                f"of shape {input_shape}."
            )
        vectors, time = (input_shape[0], input_shape[1][1]) if pair else (input_shape, self.n)
        if len(vectors) != 2:
            raise ValueError(
                "RepeatVector: the vectors must be (batch, features). Received: shape "
                f"{tuple(vectors)}."
            )
        return tuple(vectors), time
