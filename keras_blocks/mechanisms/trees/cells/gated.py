"""What the gated cells of trees share: the weights of a node's own features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.trees.cells.base import TreeCell, check_units
from keras_blocks.mechanisms.trees.kernels import active_kernels

Gates = tuple[tf.Tensor, ...]
"""Sums before their nonlinearity: all gates side by side in one tensor, or one tensor for each."""

InputProjection = dict[str, Any]
"""What nodes bring to their gates themselves: the "sums" W x + b, for each kernel of the children,
in one tensor or as `Gates`; or the "features" x that are still to be multiplied, or nothing where
they have none. See `TreeKernels.gates_apart`."""


class GatedTreeCell(TreeCell):
    """A cell whose gates see W x + b and U times what comes from the children."""

    adds_once: bool
    """Whether each level adds to every one of the sums one product, in the order in which `prepare`
    made them; for the class that says so alone, as a subclass may do otherwise."""
    gates: int
    """How many gates W and b have."""

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = check_units(units, type(self).__name__)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def build(self, input_shape: Any) -> None:
        """Creates the weights of the features; subclasses add those of the children."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], self.gates * self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.gates * self.units,),
                initializer=self.initial_bias,
                regularizer=self.bias_regularizer,
                name="bias",
            )

    def initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """The bias to begin with."""
        return self.bias_initializer(shape, dtype=dtype)

    def recurrent_weight(self, rows: int, columns: int, name: str) -> Any:
        """A weight for what comes from the children."""
        return self.add_weight(
            shape=(rows, columns),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            name=name,
        )

    def input_projection(self, features: tf.Tensor, kernels: Sequence[Any]) -> InputProjection:
        """What nodes with these features bring to the gates.

        Args:
            features: (nodes, size).
            kernels: U of the first gates, as `with_children` will be given them, in this order.
        """
        if active_kernels().gates_apart and not active_kernels().features_first:
            return {"features": features}
        if active_kernels().gates_apart:
            each = (self._range(kernels, number) for number in range(len(kernels)))
            return {f"sums_{n}": self.of_features(features, *gates) for n, gates in enumerate(each)}
        (sums,) = self.of_features(features, 0, self._gates_of(kernels))
        return self._sums(sums, kernels)

    def own_without(self, kernels: Sequence[Any], nodes: tf.Tensor) -> InputProjection:
        """What so many nodes without features bring to the gates."""
        if active_kernels().gates_apart:
            return {}
        return self._sums(self.biases(0, self._gates_of(kernels), nodes), kernels)

    def _range(self, kernels: Sequence[Any], number: int) -> tuple[int, int]:
        """The first gate of one of the kernels, and the one behind its last."""
        return self._gates_of(kernels[:number]), self._gates_of(kernels[: number + 1])

    def _gates_of(self, kernels: Sequence[Any]) -> int:
        return sum(kernel.shape[1] for kernel in kernels) // self.units

    def _sums(self, sums: tf.Tensor, kernels: Sequence[Any]) -> InputProjection:
        parts = tf.split(sums, [kernel.shape[1] for kernel in kernels], axis=1)
        return {
            f"sums_{number}": active_kernels().summed(part, tf.convert_to_tensor(kernel))
            for number, (part, kernel) in enumerate(zip(parts, kernels, strict=True))
        }

    def of_features(self, features: tf.Tensor, first: int, last: int) -> Gates:
        """W x + b for the gates from `first` to before `last`."""
        return self._products(features, self.of_gates(self.kernel, first, last), first, last)

    def biases(self, first: int, last: int, nodes: tf.Tensor) -> tf.Tensor:
        """b for these gates, for so many nodes."""
        shape = tf.stack([nodes, (last - first) * self.units])
        if self.bias is None:
            return tf.zeros(shape, self.compute_dtype)
        return tf.broadcast_to(self.of_gates(self.bias, first, last), shape)

    def with_children(
        self,
        input_projection: InputProjection,
        number: int,
        vectors: tf.Tensor,
        kernels: Sequence[Any],
    ) -> Gates:
        """The gates of one of the kernels: W x + b + U times these vectors.

        Args:
            own: what the nodes bring.
            number: int, the index of the kernel.
            vectors: (nodes, width) what comes from the children.
            kernels: as `input_projection` was given them.
        """
        kernel = tf.convert_to_tensor(kernels[number])
        sums = input_projection.get(f"sums_{number}")
        if isinstance(sums, tuple):
            parts = tf.split(kernel, len(sums), axis=1)
            return tuple(
                active_kernels().product(vectors, *pair) for pair in zip(parts, sums, strict=True)
            )
        if sums is not None:
            return (active_kernels().add_product(sums, vectors, kernel),)
        first, last = self._range(kernels, number)
        if "features" in input_projection:
            kernel = tf.concat([self.of_gates(self.kernel, first, last), kernel], axis=0)
            vectors = tf.concat([input_projection["features"], vectors], axis=-1)
        return self._products(vectors, kernel, first, last)

    def _products(self, vectors: tf.Tensor, kernel: tf.Tensor, first: int, last: int) -> Gates:
        """vectors @ kernel + b for these gates, in one product or apart."""
        parts = last - first if active_kernels().gates_apart else 1
        kernels = tf.split(kernel, parts, axis=1)
        if self.bias is None:
            return tuple(tf.matmul(vectors, part) for part in kernels)
        biases = tf.split(self.of_gates(self.bias, first, last), parts)
        return tuple(
            active_kernels().product(vectors, *pair) for pair in zip(kernels, biases, strict=True)
        )

    def of_gates(self, weight: Any, first: int, last: int | None = None) -> tf.Tensor:
        """The columns of a weight that belong to the gates from `first` to before `last`."""
        weight = tf.convert_to_tensor(weight)
        width = weight.shape[-1]
        begin, end = first * self.units, width if last is None else last * self.units
        # The gradient of a split is a join, cheaper than that of a slice.
        return tf.split(weight, [begin, end - begin, width - end], axis=-1)[1]

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            **super().get_config(),
        }
