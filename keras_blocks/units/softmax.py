"""Softmax: a vector as a probability distribution."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.ragged import AcceptsRagged, is_ragged, map_values
from keras_blocks.rows.reductions import softmax_rows


@keras.saving.register_keras_serializable("keras_blocks")
class Softmax(AcceptsRagged, keras.layers.Softmax):
    """Turns vectors into probabilities: every element in (0, 1), and their sum 1.

    y[i] = exp(x[i]) / sum over j of exp(x[j])

    Of a ragged sequence, the softmax along the time axis is taken within each row, over as many
    steps as the row has; an empty row stays empty.

    Args:
        axis: int, or for dense input also a list of ints, the axis along which to sum to 1.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the logits.
        mask: bool, True to keep. Of the rank of the input, or (batch, time) as Keras hands it on
            for sequences. What is masked gets 0, and the rest sums to 1.

    Input shape:
        Any, dense or ragged.

    Output shape:
        The same as the input.

    Raises:
        ValueError: a ragged input and axis 0, or a list of axes.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> [round(float(y), 3) for y in kb.Softmax()(np.array([[1.0, 2.0, 1.0]]))[0]]
        [0.212, 0.576, 0.212]
    """

    twin_arguments: ClassVar = {
        "dim": "axis",
        "units": "It has no weights: put a kb.Vanilla(units, activation=None) in front.",
    }

    def __init__(self, axis: int | list[int] = -1, **kwargs: Any):
        super().__init__(axis=axis, **kwargs)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Normalizes along `axis`."""
        if is_ragged(inputs):
            return self._call_ragged(inputs)
        if mask is not None and len(mask.shape) == 2:
            # The stock layer would align (batch, time) with the last axes, not with the first.
            for _ in range(len(inputs.shape) - 2):
                mask = keras.ops.expand_dims(mask, -1)
        return super().call(inputs, mask=mask)

    def _call_ragged(self, x: Any) -> Any:
        rank = len(x.shape)
        axis = self.axis + rank if isinstance(self.axis, int) and self.axis < 0 else self.axis
        if axis not in range(1, rank):
            raise ValueError(
                f"Softmax: a ragged input of rank {rank} has the axes 1 to {rank - 1} to sum "
                f"along. Received: axis={self.axis}."
            )
        if axis > 1:
            # Rows and steps are one axis of the values.
            return map_values(lambda values: tf.nn.softmax(values, axis=axis - 1), x)
        return softmax_rows(x)
