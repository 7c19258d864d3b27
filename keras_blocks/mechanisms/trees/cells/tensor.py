"""The recursive neural tensor network; `tree_cell` says what a cell is."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import PACKAGE
from keras_blocks.mechanisms.trees.cells.base import TreeCell, check_arity, check_units


@keras.saving.register_keras_serializable(package=PACKAGE)
class RecursiveTensorCell(TreeCell):
    """Recursive neural tensor network: children meet in a bilinear form and a linear one.

    For a node with features x and the vectors of its children side by side in
    a = concat(y_1, ..., y_arity), zeros where there is none:

        y = activation(x + a' V a + W a + b)
        y = x                                   at a leaf

    where a' V a stands for one number for each unit u: sum over i, j of a_i V_uij a_j. As in the
    paper the features of leaves are their vectors; give inner nodes none
    (`TreeRecursive(..., features_on="leaves")`) and theirs are zero.

    Args:
        units: int, the width of the vectors, and of the features.
        arity: int, the most children that a node may have.
        activation: the nonlinearity of inner nodes.
        use_bias: bool, whether to add b.
        tensor_initializer: for V, of shape (units, arity * units, arity * units).
        recurrent_initializer: for W, of shape (arity * units, units).
        bias_initializer: for b, of shape (units,).
        tensor_regularizer: for V.
        recurrent_regularizer: for W.
        bias_regularizer: for b.

    Raises:
        ValueError: features of another width than `units`.

    Example:
        >>> import keras_blocks as kb
        >>> layer = kb.TreeRecursive(kb.RecursiveTensorCell(8), features_on="leaves")

    Reference:
        Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment
        Treebank", 2013, section 4.3.
    """

    arity: int

    def __init__(
        self,
        units: int,
        arity: int = 2,
        activation: Any = "tanh",
        use_bias: bool = True,
        tensor_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        tensor_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.units = self.state_size = check_units(units, type(self).__name__)
        self.arity = check_arity(arity, type(self).__name__)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.tensor_initializer = keras.initializers.get(tensor_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.tensor_regularizer = keras.regularizers.get(tensor_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def build(self, input_shape: Any) -> None:
        """Creates the weights, for features as wide as the vectors."""
        if input_shape[-1] != self.units:
            raise ValueError(
                f"RecursiveTensorCell: the features of a leaf are its vector, so they must have "
                f"the width units={self.units}. Received: width {input_shape[-1]}. Put a layer of "
                f"that width before, such as keras_blocks.Vanilla({self.units})."
            )
        width = self.arity * self.units
        self.tensor = self.add_weight(
            shape=(self.units, width, width),
            initializer=self.tensor_initializer,
            regularizer=self.tensor_regularizer,
            name="tensor",
        )
        self.recurrent_kernel = self.add_weight(
            shape=(width, self.units),
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            name="recurrent_kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                name="bias",
            )

    def leaves(self, features: tf.Tensor) -> tf.Tensor:
        """The vectors of leaves: their features."""
        return features

    def call(self, inputs: tf.Tensor, children: tf.Tensor) -> tf.Tensor:
        """The vectors of one level."""
        width = self.arity * self.units
        side_by_side = tf.reshape(children, [-1, width])
        # One product for all units: (nodes, width) by (width, units * width).
        tensor = tf.reshape(tf.transpose(tf.convert_to_tensor(self.tensor), [1, 0, 2]), [width, -1])
        half = tf.reshape(tf.matmul(side_by_side, tensor), [-1, self.units, width])
        met = tf.squeeze(tf.matmul(half, tf.expand_dims(side_by_side, 2)), 2)
        total = inputs + met + tf.matmul(side_by_side, self.recurrent_kernel)
        return self.activation(total if self.bias is None else total + self.bias)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "units": self.units,
            "arity": self.arity,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "tensor_initializer": keras.initializers.serialize(self.tensor_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "tensor_regularizer": keras.regularizers.serialize(self.tensor_regularizer),
            "recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            **super().get_config(),
        }
