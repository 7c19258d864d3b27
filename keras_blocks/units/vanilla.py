"""The plain layer: a linear map and a nonlinearity."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from keras_blocks.ragged import AcceptsRagged, is_ragged, map_values


@keras.saving.register_keras_serializable("keras_blocks")
class Vanilla(AcceptsRagged, keras.layers.Dense):
    """A linear map of the last axis, followed by a nonlinearity.

    y = activation(x W + b)

    `keras.layers.Dense` with a nonlinearity by default, and for ragged sequences too: there it
    maps the vector of every step of every row.

    Args:
        units: int, the size of the output vector.
        activation: the nonlinearity: a name, a function, or None for the linear map alone.
        use_bias: bool, whether to add `b`.
        **kwargs: as in `keras.layers.Dense`: initializers (`kernel_initializer`, ...),
            regularizers, constraints, `name`, `dtype`, ...

    Input shape:
        (batch, ..., features), dense or ragged.

    Output shape:
        (batch, ..., units), ragged where the input is.

    Raises:
        ValueError: `units` is no positive integer, or the input has no last axis of known size.

    Example:
        >>> import keras_blocks as kb, numpy as np
        >>> kb.Vanilla(3)(np.ones((2, 5))).shape
        TensorShape([2, 3])
    """

    twin_arguments: ClassVar = {
        "filters": "units",
        "hidden_size": "units",
        "out_features": "units",
        "output_dim": "units",
        "nonlinearity": "activation",
        "bias": "use_bias",
    }

    def __init__(self, units: int, activation: Any = "tanh", use_bias: bool = True, **kwargs: Any):
        super().__init__(units, activation=activation, use_bias=use_bias, **kwargs)

    def build(self, input_shape: Any) -> None:
        """Makes `kernel` (features, units) and `bias` (units)."""
        if input_shape[-1] is None:
            raise ValueError(
                f"Vanilla: the last axis of the input holds the features, and its size must be "
                f"known. Received an input of shape {tuple(input_shape)}."
            )
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Maps the last axis."""
        if is_ragged(inputs):
            return map_values(super().call, inputs)
        return super().call(inputs)

    def quantize(self, mode: Any = None, type_check: bool = True, config: Any = None) -> None:
        """Quantizes the weights as the twin does; a subclass must say that it can be."""
        super().quantize(mode, type_check=type_check and type(self) is not Vanilla, config=config)

    def quantized_call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Maps the last axis by the quantized weights."""
        if is_ragged(inputs):
            return map_values(super().quantized_call, inputs)
        return super().quantized_call(inputs, *args, **kwargs)

    def affine_parts(self) -> tuple[Any, Any | None, Any]:
        """W, b (or None) and the nonlinearity: from these a mechanism may compute the layer in a
        cheaper order than by calling it."""
        return self.kernel, self.bias, self.activation
