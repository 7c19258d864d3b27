"""From ragged rows to a dense tensor with its mask, and back."""

from __future__ import annotations

from typing import Any

import keras

from keras_blocks.ragged import AcceptsRagged, from_dense, is_ragged, ragged_spec, to_padded


@keras.saving.register_keras_serializable("keras_blocks")
class ToDense(AcceptsRagged, keras.layers.Layer):
    """Ragged rows as a dense tensor, padded behind each row, with the mask of the steps.

    y[i, t] = row i at t, or `pad_value` behind its end; mask[i, t] = t < length of row i

    The mask goes on as Keras's masks do: `LSTM`, `MultiHeadAttention`, losses and metrics heed it.
    `ToRagged` is the way back.

    Args:
        pad_value: number, what stands behind the end of a row.
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Input shape:
        Ragged (batch, time, ...). A dense input stays as it is.

    Output shape:
        (batch, time, ...), as long as the longest row and at least 1.

    Example:
        >>> import keras_blocks as kb, tensorflow as tf
        >>> rows = tf.ragged.constant([[[1.0], [2.0]], [], [[3.0]]], inner_shape=(1,))
        >>> y = kb.ToDense()(rows)
        >>> y[..., 0].numpy().tolist(), y._keras_mask.numpy().tolist()
        ([[1.0, 2.0], [0.0, 0.0], [3.0, 0.0]], [[True, True], [False, False], [True, False]])
    """

    ragged_output = False

    def __init__(self, pad_value: float = 0, **kwargs: Any):
        super().__init__(**kwargs)
        self.pad_value = pad_value
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Pads."""
        if not is_ragged(inputs):
            return inputs
        padded, mask = to_padded(inputs, at_least=1, fill=self.pad_value)
        padded._keras_mask = mask
        return padded

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {**super().get_config(), "pad_value": self.pad_value}


@keras.saving.register_keras_serializable("keras_blocks")
class ToRagged(AcceptsRagged, keras.layers.Layer):
    """The steps of a dense tensor that its mask keeps, as ragged rows.

    row i = the x[i, t] with mask[i, t], in order

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: the dense rows.
        mask: bool (batch, time); Keras hands on that of the input. None keeps every step.

    Input shape:
        (batch, time, ...). A ragged input stays as it is.

    Output shape:
        Ragged (batch, time, ...).

    Raises:
        ValueError: the mask is not (batch, time).

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> mask = np.array([[True, True], [False, True]])
        >>> kb.ToRagged()(np.array([[[1.0], [2.0]], [[3.0], [4.0]]]), mask=mask).to_list()
        [[[1.0], [2.0]], [[4.0]]]
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Takes the padding out."""
        if is_ragged(inputs):
            return inputs
        if mask is not None and len(mask.shape) != 2:
            raise ValueError(
                "ToRagged: the mask must have one entry for each step, (batch, time). Received a "
                f"mask of shape {tuple(mask.shape)}."
            )
        return from_dense(inputs, mask)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: no step is left that does not count."""
        return None

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """The symbolic output, ragged."""
        # XLA has no ragged tensors; Keras looks here when a model is compiled.
        self.supports_jit = False
        return ragged_spec(inputs.shape, inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """That of the input, of any time."""
        return (input_shape[0], None, *input_shape[2:])
