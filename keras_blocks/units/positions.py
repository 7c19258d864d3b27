"""Positions: a vector for the place of each step in its row, to be added to the step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged
from keras_blocks.rows.reductions import index_steps


class _Positions(AcceptsRagged, keras.layers.Layer):
    """Base of the positions: a subclass gives the vectors of places."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Checks that there are steps and features."""
        if len(input_shape) < 3 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__}: the input must be (batch, ..., time, features), with a "
                f"known number of features. Received an input of shape {tuple(input_shape)}."
            )

    def call(self, inputs: Any, start_index: Any = 0) -> Any:
        """The vectors of the places of all steps."""
        if is_ragged(inputs):
            places = tf.cast(index_steps(inputs), tf.int32) + tf.cast(start_index, tf.int32)
            return inputs.with_values(self.encode(places, inputs.shape[-1]))
        places = keras.ops.arange(keras.ops.shape(inputs)[-2], dtype="int32")
        encoded = self.encode(places + keras.ops.cast(start_index, "int32"), inputs.shape[-1])
        return keras.ops.broadcast_to(encoded, keras.ops.shape(inputs))

    def encode(self, places: Any, features: int) -> Any:
        """The vectors (..., features) of places, int32."""
        raise NotImplementedError(f"{type(self).__name__} does not define `encode`.")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape


@keras.saving.register_keras_serializable("keras_blocks")
class SinePositionEncoding(_Positions):
    """Waves of growing length: a vector for each place, which needs no training.

    y[t, 2i] = sin(t / max_wavelength ** (2i / features))
    y[t, 2i + 1] = cos(t / max_wavelength ** (2i / features))

    In a ragged sequence each row begins at place 0. The result is to be added to the input:
    `keras_blocks.Add()([x, keras_blocks.SinePositionEncoding()(x)])`.

    Args:
        max_wavelength: number, how long the longest wave is, in steps by 2 pi.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the steps; only their shape matters.
        start_index: int, the place of the first step of each row.

    Input shape:
        (batch, time, features), dense or ragged.

    Output shape:
        The same as the input.

    Raises:
        ValueError: the input has no steps, or their size is not known.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> np.round(kb.SinePositionEncoding()(np.zeros((1, 2, 2))), 2).tolist()
        [[[0.0, 1.0], [0.8399999737739563, 0.5400000214576721]]]

    Reference:
        Vaswani et al., "Attention is all you need" (2017).
    """

    def __init__(self, max_wavelength: float = 10000, **kwargs: Any):
        super().__init__(**kwargs)
        self.max_wavelength = max_wavelength

    def encode(self, places: Any, features: int) -> Any:
        """Sines at even features, cosines at odd ones."""
        feature = np.arange(features)
        rates = self.max_wavelength ** -(2 * (feature // 2) / features)
        # Half precision would not tell late places from their neighbours.
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        angles = keras.ops.cast(places, dtype)[..., None] * rates.astype(dtype)
        waves = keras.ops.where(feature % 2 == 0, keras.ops.sin(angles), keras.ops.cos(angles))
        return keras.ops.cast(waves, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "max_wavelength": self.max_wavelength}


@keras.saving.register_keras_serializable("keras_blocks")
class PositionEmbedding(_Positions):
    """A trained vector for each place.

    y[t] = P[t]

    In a ragged sequence each row begins at place 0. The result is to be added to the input:
    `keras_blocks.Add()([x, keras_blocks.PositionEmbedding(200)(x)])`.

    Args:
        sequence_length: int, how many places there are: the longest row that will come.
        initializer: how P starts.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the steps; only their shape matters.
        start_index: int, the place of the first step of each row.

    Input shape:
        (batch, time, features), dense or ragged, with at most `sequence_length` steps.

    Output shape:
        The same as the input.

    Raises:
        ValueError: `sequence_length` is no positive int; the input has no steps, or their size is
            not known.
        tf.errors.InvalidArgumentError: a row is longer than `sequence_length`.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0, 2.0], [3.0, 4.0]], []], inner_shape=(2,))
        >>> kb.PositionEmbedding(10)(rows).row_lengths().numpy().tolist()
        [2, 0]
    """

    def __init__(self, sequence_length: int, initializer: Any = "glorot_uniform", **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(sequence_length, int) or sequence_length <= 0:
            raise ValueError(
                "PositionEmbedding: sequence_length must be a positive int. "
                f"Received: sequence_length={sequence_length!r}."
            )
        self.sequence_length = sequence_length
        self.initializer = keras.initializers.get(initializer)

    def build(self, input_shape: Any) -> None:
        """Makes `position_embeddings` (sequence_length, features)."""
        super().build(input_shape)
        self.position_embeddings = self.add_weight(
            name="embeddings",
            shape=(self.sequence_length, input_shape[-1]),
            initializer=self.initializer,
        )

    def encode(self, places: Any, features: int) -> Any:
        """The rows of the table."""
        return tf.gather(tf.convert_to_tensor(self.position_embeddings), places)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "sequence_length": self.sequence_length,
            "initializer": keras.initializers.serialize(self.initializer),
        }
