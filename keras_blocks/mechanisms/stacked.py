"""Stacked layers: the output of one is the input of the next."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks.copying import restore_layers, store_layers
from keras_blocks.mechanisms.lifting import (
    PACKAGE,
    build_layer,
    check_layer,
    is_shape,
    leaving_no_nodes,
    output_shape,
)
from keras_blocks.mechanisms.ragged_calls import call_on_ragged
from keras_blocks.ragged import AcceptsRagged, is_ragged, ragged_spec


@keras.saving.register_keras_serializable(PACKAGE)
class Stacked(AcceptsRagged, keras.layers.Layer):
    """Layers on top of one another: each takes the output of the one before.

    y = layers[-1](... layers[1](layers[0](x)))

    Masks and `training` go from layer to layer as they do in the functional API. On a ragged
    sequence every row gives what it would give alone: blocks take it as it is; stock layers that
    treat each step by itself (`Dense`, `Dropout`, `LayerNormalization`, ...) get the steps of all
    rows; those that heed masks (`LSTM`, `Bidirectional`, ...) get padded rows and a mask, and
    their sequences are ragged again. A layer for which neither is right is refused.

    Args:
        layers: list of layers, at least one; any layer will do: a block, a stock layer, a layer of
            your own, a whole model. A layer that stands in several places shares its weights.
        **kwargs: `name`, `dtype` and `trainable`, as for every layer.

    Input shape:
        What the first layer takes.

    Output shape:
        What the last layer gives.

    Raises:
        TypeError: `layers` is no list of layers, or a layer cannot take the ragged sequence that
            it is given.
        ValueError: `layers` is empty.

    Example:
        >>> import keras, keras_blocks as kb, numpy as np
        >>> deep = kb.Stacked([kb.Vanilla(8), keras.layers.Dropout(0.5), kb.Vanilla(3)])
        >>> deep(np.ones((2, 5))).shape
        TensorShape([2, 3])
    """

    twin_arguments: ClassVar = {"cells": "layers", "layer": "layers"}

    def __init__(self, layers: Sequence[keras.layers.Layer], **kwargs: Any):
        if not isinstance(layers, (list, tuple)):
            raise TypeError(
                "Stacked: `layers` must be a list of layers. "
                f"Received: {layers!r} (of type {type(layers).__name__})."
            )
        if not layers:
            raise ValueError(
                "Stacked: `layers` is empty. Give at least one layer; keras.layers.Identity() "
                "is the layer that does nothing."
            )
        super().__init__(**kwargs)
        self.layers = [
            check_layer(layer, "Stacked", f"layers[{index}]") for index, layer in enumerate(layers)
        ]
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Builds each layer for the output of the one before."""
        before = None
        for layer in self.layers:
            with _explained(before, layer, input_shape):
                if before is not None and _takes_one(layer) and not is_shape(input_shape):
                    raise ValueError("It takes one tensor.")  # not several stacked into one
                build_layer(layer, input_shape)
            if layer is not self.layers[-1]:
                input_shape = output_shape(layer, input_shape)
            before = layer

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Runs the layers in order."""
        if tf.is_tensor(mask) and getattr(inputs, "_keras_mask", None) is None:
            # The mask came as an argument; the caller's tensor stays as it is.
            inputs = tf.identity(inputs)
            inputs._keras_mask = mask
        return self._run(inputs)

    def compute_output_spec(self, inputs: Any, mask: Any = None) -> Any:
        """The symbolic output of the last layer."""
        if is_ragged(inputs):
            # XLA has no ragged tensors; Keras looks here when a model is compiled.
            self.supports_jit = False
        masks = keras.tree.map_structure(lambda x: getattr(x, "_keras_mask", None), inputs)
        symbols = keras.tree.map_structure(_copy_symbol, inputs)
        if isinstance(symbols, keras.KerasTensor) and not is_ragged(symbols):
            symbols._keras_mask = masks if mask is None else mask
        with leaving_no_nodes(self.layers):
            outputs = self._run(symbols)
        for output in keras.tree.flatten(outputs):
            # It hangs on the copies, not on the model; the real call puts a real one there.
            output._keras_mask = None
        return outputs

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: the last layer has put its mask on the output already, if it has one."""
        return None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """What the last layer gives."""
        for layer in self.layers:
            input_shape = output_shape(layer, input_shape)
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The layers, serialised, and the arguments of every layer.

        One that stands in several places has the same number at each, its "shared_layer".
        """
        return {**super().get_config(), "layers": store_layers(self.layers)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        return cls(**{**config, "layers": restore_layers(config["layers"], custom_objects)})

    def _run(self, x: Any) -> Any:
        for layer in self.layers:
            x = call_on_ragged(layer, x) if is_ragged(x) else layer(x)
        return x


def _takes_one(layer: keras.layers.Layer) -> bool:
    """Whether it is one of our layers, which but for the stack itself take one tensor."""
    ours = type(layer).__module__.partition(".")[0] == PACKAGE and isinstance(layer, AcceptsRagged)
    return ours and not isinstance(layer, Stacked)


@contextlib.contextmanager
def _explained(
    before: keras.layers.Layer | None, layer: keras.layers.Layer, shape: Any
) -> Iterator[None]:
    """Says of a failed build that the layer before gives several outputs, or one of no known width,
    if it does."""
    try:
        yield
    except (TypeError, ValueError) as error:
        known = is_shape(shape)
        if before is None or (known and shape[-1] is not None):
            raise
        gives = f"layer '{before.name}' gives outputs of shapes {shape}"
        mend = (
            "A layer that takes one tensor needs one that gives one: leave out `return_state`, "
            "or put a layer between that picks the output."
        )
        if known:
            gives = f"layer '{before.name}' gives an output of shape {tuple(shape)}"
            mend = (
                "The size of its last axis must be known: give the input a full shape, or the "
                "layer an output shape (keras.layers.Lambda has `output_shape`)."
            )
        raise ValueError(
            f"Stacked: {gives}, which '{layer.name}' (a {type(layer).__name__}) cannot be built "
            f"for. {mend}"
        ) from error


def _copy_symbol(x: keras.KerasTensor) -> keras.KerasTensor:
    """The same symbol without its history, so that the calls inside leave no trace in the model."""
    if is_ragged(x):
        return ragged_spec(x.shape, x.dtype)
    return keras.KerasTensor(x.shape, x.dtype, sparse=x.sparse)
