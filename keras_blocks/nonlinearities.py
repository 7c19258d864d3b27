"""Nonlinearities: functions of every element by itself."""

from __future__ import annotations

from typing import Any

import keras

from keras_blocks.ragged import AcceptsRagged, is_ragged, map_values


class _Elementwise(AcceptsRagged, keras.layers.Layer):
    """Base of the nonlinearities: subclasses say what becomes of the elements."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Any) -> Any:
        """Applies the function to every element; a ragged tensor keeps its rows."""
        if is_ragged(inputs):
            return map_values(self.elementwise, inputs)
        return self.elementwise(inputs)

    def elementwise(self, x: Any) -> Any:
        """The function, on a dense tensor."""
        raise NotImplementedError(f"{type(self).__name__} does not define `elementwise`.")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the input."""
        return input_shape


@keras.saving.register_keras_serializable("keras_blocks")
class Sigmoid(_Elementwise):
    """Squashes every element into (0, 1).

    y = 1 / (1 + exp(-x))

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Input shape:
        Any, dense or ragged.

    Output shape:
        The same as the input.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> [round(float(y), 3) for y in kb.Sigmoid()(np.array([-1.0, 0.0, 1.0]))]
        [0.269, 0.5, 0.731]
    """

    def elementwise(self, x: Any) -> Any:
        """1 / (1 + exp(-x))."""
        return keras.ops.sigmoid(x)


@keras.saving.register_keras_serializable("keras_blocks")
class Tanh(_Elementwise):
    """Squashes every element into (-1, 1).

    y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)) = 2 * sigmoid(2 * x) - 1

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Input shape:
        Any, dense or ragged.

    Output shape:
        The same as the input.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> [round(float(y), 3) for y in kb.Tanh()(np.array([-1.0, 0.0, 1.0]))]
        [-0.762, 0.0, 0.762]
    """

    def elementwise(self, x: Any) -> Any:
        """tanh(x)."""
        return keras.ops.tanh(x)


@keras.saving.register_keras_serializable("keras_blocks")
class Rectifier(_Elementwise):
    """Cuts off every element below 0; its slope is 0 below and 1 above.

    y = max(0, x)

    Args:
        **kwargs: `name`, `dtype` and the other arguments of `keras.layers.Layer`.

    Input shape:
        Any, dense or ragged.

    Output shape:
        The same as the input.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> [float(y) for y in kb.Rectifier()(np.array([-1.0, 0.0, 1.0]))]
        [0.0, 0.0, 1.0]

    Reference:
        Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines" (2010).
    """

    def elementwise(self, x: Any) -> Any:
        """max(0, x)."""
        return keras.ops.relu(x)
