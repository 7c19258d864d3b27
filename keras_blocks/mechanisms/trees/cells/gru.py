"""The gated recurrent unit over trees; `tree_cell` says what a cell is."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import PACKAGE
from keras_blocks.mechanisms.trees.cells.base import Children
from keras_blocks.mechanisms.trees.cells.gated import GatedTreeCell, InputProjection
from keras_blocks.mechanisms.trees.kernels import active_kernels


@keras.saving.register_keras_serializable(package=PACKAGE)
class TreeGRUCell(GatedTreeCell):
    """GRU over any number of children, whose order does not matter.

    For a node with features x and children k, with s = sum of h_k:

        r_k = sigmoid(W_r x + U_r h_k + b_r)            a reset gate for each child
        z = sigmoid(W_z x + U_z s + b_z)                the update gate
        u = tanh(W_u x + U_u (sum of r_k * h_k) + b_u)  the proposal
        h = (1 - z) * s + z * u

    Over a chain this is the `GRU` of this package.

    Args:
        units: int, the width of the state.
        use_bias: bool, whether to add a bias.
        kernel_initializer: for W, (features, 3 * units), its gates in the order z, u, r.
        recurrent_initializer: for U: `recurrent_kernel` (units, 3 * units), its gates likewise.
        bias_initializer: for b, of shape (3 * units,).
        kernel_regularizer: for W.
        recurrent_regularizer: for U.
        bias_regularizer: for b.

    Example:
        >>> import keras_blocks as kb
        >>> layer = kb.TreeRecursive(kb.TreeGRUCell(8))

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
        Machine Translation", 2014, https://arxiv.org/abs/1406.1078, summed over children as in Tai,
        Socher, Manning, 2015, https://arxiv.org/abs/1503.00075.
    """

    adds_once = True
    gates = 3

    def __init__(self, units: int, *args: Any, **kwargs: Any):
        super().__init__(units, *args, **kwargs)
        self.state_size = self.units

    def build(self, input_shape: Any) -> None:
        """Creates the weights for features of this shape."""
        super().build(input_shape)
        self.recurrent_kernel = self.recurrent_weight(
            self.units, 3 * self.units, "recurrent_kernel"
        )

    def prepare(self, features: tf.Tensor) -> tuple[InputProjection, tf.Tensor]:
        """What nodes bring to the gates z and u, and W x + b for r."""
        return self.input_projection(features, self._kernels()[:2]), *self.of_features(
            features, 2, 3
        )

    def prepare_without(self, size: int, nodes: tf.Tensor) -> tuple[InputProjection, tf.Tensor]:
        """The same of nodes without features."""
        return self.own_without(self._kernels()[:2], nodes), self.biases(2, 3, nodes)

    def leaves(self, features: tf.Tensor) -> tf.Tensor:
        """The states of leaves: nothing to reset or to keep."""
        (update,), (proposal,) = (self.of_features(features, i, i + 1) for i in range(2))
        return tf.sigmoid(update) * tf.tanh(proposal)

    def message(self, inputs: Any, children: Children) -> tuple[tf.Tensor, tf.Tensor]:
        """h_k and r_k * h_k."""
        (hidden,) = children.states
        *_, kernel = self._kernels()
        reset = active_kernels().product(hidden, kernel, children.of_owner(inputs[1]))
        return hidden, tf.sigmoid(reset) * hidden

    def call(self, inputs: Any, children: Any) -> tf.Tensor:
        """The state of one level."""
        (input_projection, _), (total, after_reset) = inputs, children
        kernels = self._kernels()[:2]
        (update,) = self.with_children(input_projection, 0, total, kernels)
        (proposal,) = self.with_children(input_projection, 1, after_reset, kernels)
        update = tf.sigmoid(update)
        return (1 - update) * total + update * tf.tanh(proposal)

    def _kernels(self) -> list[tf.Tensor]:
        """U of the gates z, u and r."""
        return tf.split(tf.convert_to_tensor(self.recurrent_kernel), 3, axis=1)
