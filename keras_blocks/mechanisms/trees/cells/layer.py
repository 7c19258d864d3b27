"""LayerCell: any layer from vectors to vectors, as what is applied to the nodes of a tree."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.copying import unbuilt_copy
from keras_blocks.mechanisms.lifting import (
    PACKAGE,
    Lifting,
    build_layer,
    call_on_vectors,
    vector_output_shape,
)
from keras_blocks.mechanisms.trees.cells.base import TreeCell, check_arity, check_combine


@keras.saving.register_keras_serializable(package=PACKAGE)
class LayerCell(Lifting, TreeCell):
    """Any layer as a cell: y = layer(concat(x, child_1, ..., child_arity)).

    The children stand in the order of their index in the tree, zeros where there is none; so a leaf
    is layer(concat(x, 0, ..., 0)). With `combine` one vector stands for any number of them:
    y = layer(concat(x, sum of child_k)), or their mean or maximum.

    Args:
        layer: any layer from vectors to vectors.
        arity: int, the most children that a node may have, or None with `combine`.
        combine: `"sum"`, `"mean"`, `"max"`, or None with `arity`.
    """

    state_size: int

    def __init__(
        self,
        layer: keras.layers.Layer,
        arity: int | None = None,
        combine: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(layer, **kwargs)
        self.arity = None if arity is None else check_arity(arity, "TreeRecursive")
        self.combine = "sum" if combine is None else check_combine(combine, "TreeRecursive")

    @property
    def slots(self) -> int:
        """How many vectors stand beside the features."""
        return 1 if self.arity is None else self.arity

    def build(self, input_shape: Any) -> None:
        """Finds the width of the layer's output and builds it for features of this shape."""
        self.state_size = _own_width(self.layer, int(input_shape[-1]), self.slots)
        build_layer(self.layer, (None, input_shape[-1] + self.slots * self.state_size))

    def call(self, inputs: tf.Tensor, children: tf.Tensor) -> tf.Tensor:
        """The vectors of one level."""
        vectors = tf.reshape(children, [-1, self.slots * self.state_size])
        return call_on_vectors(self.layer, tf.concat([inputs, vectors], axis=-1))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        combine = self.combine if self.arity is None else None
        return {"arity": self.arity, "combine": combine, **super().get_config()}


def _own_width(layer: keras.layers.Layer, features: int, arity: int) -> int:
    """The width w of a layer that gives w from features + arity * w."""
    if layer.built:
        probe, taken = layer, _taken_width(layer)
    else:
        # Its input needs the width of its output: ask a copy, whose weights may be wrong.
        probe, taken = unbuilt_copy(layer), features + arity
    shape = vector_output_shape(probe, (None, taken), "TreeRecursive")
    if len(shape) != 2 or shape[-1] is None:
        raise ValueError(
            f"TreeRecursive: the lifted layer '{layer.name}' must give vectors (nodes, units). "
            f"On an input of shape (None, {taken}) it gives {shape}."
        )
    width = int(shape[-1])
    if layer.built and taken not in (None, features + arity * width):
        raise ValueError(
            f"TreeRecursive: the layer '{layer.name}' is built for vectors of width {taken} and "
            f"gives width {width}. Expected an input of width features + arity * output = "
            f"{features} + {arity} * {width} = {features + arity * width}: mend the layer or "
            f"`arity`."
        )
    return width


def _taken_width(layer: keras.layers.Layer) -> int | None:
    """The width of the vectors that a built layer takes."""
    if isinstance(layer, keras.Model) and layer.inputs:
        return layer.inputs[0].shape[-1]
    return (layer.get_build_config() or {}).get("input_shape", (None,))[-1]
