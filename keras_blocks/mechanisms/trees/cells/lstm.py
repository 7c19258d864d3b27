"""The Tree-LSTM cells of Tai, Socher and Manning; `tree_cell` says what a cell is."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import PACKAGE
from keras_blocks.mechanisms.trees import lstm_gates as pointwise
from keras_blocks.mechanisms.trees.cells.base import (
    FEW_SLOTS,
    Children,
    check_arity,
    check_edge_labels,
)
from keras_blocks.mechanisms.trees.cells.gated import GatedTreeCell, Gates, InputProjection
from keras_blocks.mechanisms.trees.kernels import active_kernels


class _TreeLSTMCell(GatedTreeCell):
    """What the Tree-LSTM cells share.

    The gates stand in the order i, o, c, f: the three that a leaf needs are together, and so are
    the two that a sigmoid closes.
    """

    gates = 4

    def __init__(self, units: int, *args: Any, unit_forget_bias: bool = True, **kwargs: Any):
        super().__init__(units, *args, **kwargs)
        self.state_size = (self.units, self.units)
        self.unit_forget_bias = unit_forget_bias

    def initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """The bias to begin with, that of the forget gate 1 where it is to be open."""
        bias = super().initial_bias(shape, dtype)
        if not self.unit_forget_bias:
            return bias
        ones = tf.ones([self.units], dtype=bias.dtype)
        return tf.concat([bias[: 3 * self.units], ones], axis=0)

    def prepare(self, features: tf.Tensor) -> tuple[InputProjection, tf.Tensor]:
        """What nodes bring to the gates i, o, c, and W x + b for f."""
        return self.input_projection(features, [self.gate_kernel()]), *self.of_features(
            features, 3, 4
        )

    def prepare_without(self, size: int, nodes: tf.Tensor) -> tuple[InputProjection, tf.Tensor]:
        """The same of nodes without features."""
        return self.own_without([self.gate_kernel()], nodes), self.biases(3, 4, nodes)

    def gate_kernel(self) -> tf.Tensor:
        """U of the gates i, o, c."""
        return self.of_gates(self.recurrent_kernel, 0, 3)

    def leaves(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The states of leaves: nothing to forget."""
        return self.opened(self.of_features(features, 0, 3))

    def opened(self, gates: Gates, kept: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c from the gates i, o, c before their nonlinearity."""
        if len(gates) == 1:
            kept = tf.zeros_like(gates[0][:, : self.units]) if kept is None else kept
            return pointwise.memory_and_output(gates[0], kept)
        let_in, let_out, proposal = gates
        memory = tf.sigmoid(let_in) * tf.tanh(proposal)
        if kept is not None:
            memory += kept
        return tf.sigmoid(let_out) * tf.tanh(memory), memory

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"unit_forget_bias": self.unit_forget_bias, **super().get_config()}


@keras.saving.register_keras_serializable(package=PACKAGE)
class ChildSumTreeLSTMCell(_TreeLSTMCell):
    """Tree-LSTM over any number of children, whose order does not matter.

    For a node with features x and children k, with s = sum of h_k:

        i = sigmoid(W_i x + U_i s + b_i)
        o = sigmoid(W_o x + U_o s + b_o)
        u = tanh(W_u x + U_u s + b_u)
        f_k = sigmoid(W_f x + U_f h_k + b_f)
        c = i * u + sum of f_k * c_k
        h = o * tanh(c)

    With `edge_labels` the label e_k of the edge to child k, such as the relation in a dependency
    parse, adds a vector to each sum above: the sum of V_i[e_k] over the children to that of i,
    likewise for o and u, and V_f[e_k] to that of f_k. `TreeRecursive` then takes the labels as a
    third input.

    Args:
        units: int, the width of the states.
        use_bias: bool, whether to add a bias.
        kernel_initializer: for W, (features, 4 * units), its gates in the order i, o, u, f.
        recurrent_initializer: for U: `recurrent_kernel` (units, 3 * units) for i, o, u and
            `forget_kernel` (units, units); and for V, `edge_kernel` (edge_labels, 4 * units), in
            the order i, o, u, f.
        bias_initializer: for b, of shape (4 * units,).
        unit_forget_bias: bool, start the bias of the forget gate at 1.
        kernel_regularizer: for W.
        recurrent_regularizer: for U and V.
        bias_regularizer: for b.
        edge_labels: int, how many labels edges may have, or None: they have none.

    Example:
        >>> import keras_blocks as kb
        >>> layer = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(8))

    Reference:
        Tai, Socher, Manning, "Improved Semantic Representations From Tree-Structured Long
        Short-Term Memory Networks", 2015, https://arxiv.org/abs/1503.00075, equations 2 to 8.
    """

    adds_once = True

    def __init__(self, units: int, *args: Any, edge_labels: int | None = None, **kwargs: Any):
        super().__init__(units, *args, **kwargs)
        self.edge_labels = check_edge_labels(edge_labels, type(self).__name__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for features of this shape."""
        super().build(input_shape)
        units = self.units
        self.recurrent_kernel = self.recurrent_weight(units, 3 * units, "recurrent_kernel")
        self.forget_kernel = self.recurrent_weight(units, units, "forget_kernel")
        self.edge_kernel = None
        if self.edge_labels is not None:
            self.edge_kernel = self.recurrent_weight(self.edge_labels, 4 * units, "edge_kernel")

    def message(self, inputs: Any, children: Children) -> tuple[tf.Tensor, ...]:
        """h_k and f_k * c_k, and V of the edge for i, o, u."""
        hidden, memory = children.states
        kernel = tf.convert_to_tensor(self.forget_kernel)
        if active_kernels().gates_apart:
            # onnxruntime packs no weight for a loop in a branch, but what it cuts itself.
            kernel = self.of_gates(kernel, 0)
        forget = active_kernels().product(hidden, kernel, children.of_owner(inputs[1]))
        if self.edge_kernel is None:
            return hidden, pointwise.forget(forget, memory)
        of_edge = tf.gather(tf.convert_to_tensor(self.edge_kernel), children.edges)
        of_gates, of_forget = tf.split(of_edge, [3 * self.units, self.units], axis=-1)
        return hidden, pointwise.forget(forget + of_forget, memory), of_gates

    def call(self, inputs: Any, children: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c of one level."""
        (input_projection, _), (hidden, kept, *of_edges) = inputs, children
        gates = self.with_children(input_projection, 0, hidden, [self.gate_kernel()])
        if of_edges:
            parts = tf.split(of_edges[0], len(gates), axis=-1)
            gates = tuple(gate + part for gate, part in zip(gates, parts, strict=True))
        return self.opened(gates, kept)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"edge_labels": self.edge_labels, **super().get_config()}


@keras.saving.register_keras_serializable(package=PACKAGE)
class NaryTreeLSTMCell(_TreeLSTMCell):
    """Tree-LSTM over at most `arity` children, with weights of its own for each place.

    For a node with features x and children l = 1..arity, zeros where there is none:

        i = sigmoid(W_i x + sum of U_il h_l + b_i)
        o = sigmoid(W_o x + sum of U_ol h_l + b_o)
        u = tanh(W_u x + sum of U_ul h_l + b_u)
        f_k = sigmoid(W_f x + sum over l of U_fkl h_l + b_f)
        c = i * u + sum of f_l * c_l
        h = o * tanh(c)

    The children stand in the order of their index in the tree, or in the slots that `TreeRecursive`
    is given as a third input.

    Args:
        units: int, the width of the states.
        arity: int, the most children that a node may have. A node with more is refused.
        use_bias: bool, whether to add a bias.
        kernel_initializer: for W, (features, 4 * units), its gates in the order i, o, u, f.
        recurrent_initializer: for U: `recurrent_kernel` (arity * units, (3 + arity) * units), its
            rows by child l, its columns i, o, u, f_1 to f_arity.
        bias_initializer: for b, of shape (4 * units,).
        unit_forget_bias: bool, start the bias of the forget gate at 1.
        kernel_regularizer: for W.
        recurrent_regularizer: for U.
        bias_regularizer: for b.

    Example:
        >>> import keras_blocks as kb
        >>> layer = kb.TreeRecursive(kb.NaryTreeLSTMCell(8, arity=2))

    Reference:
        Tai, Socher, Manning, "Improved Semantic Representations From Tree-Structured Long
        Short-Term Memory Networks", 2015, https://arxiv.org/abs/1503.00075, equations 9 to 14.
    """

    adds_once = True
    arity: int

    def __init__(self, units: int, arity: int, *args: Any, **kwargs: Any):
        super().__init__(units, *args, **kwargs)
        self.arity = check_arity(arity, type(self).__name__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for features of this shape."""
        super().build(input_shape)
        self.recurrent_kernel = self.recurrent_weight(
            self.arity * self.units, (3 + self.arity) * self.units, "recurrent_kernel"
        )

    def call(self, inputs: Any, children: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c of one level."""
        units, arity = self.units, self.arity
        (input_projection, forget), (hidden, memory) = inputs, children
        hidden = tf.reshape(hidden, [-1, arity * units])
        gates = self.with_children(input_projection, 0, hidden, [self.gate_kernel()])
        if active_kernels().gates_apart:
            kernels = tf.split(self.forget_kernel(), arity, axis=-1)
            opened = [
                tf.sigmoid(active_kernels().product(hidden, kernel, forget)) for kernel in kernels
            ]
            kept = [f * c for f, c in zip(opened, tf.unstack(memory, axis=1), strict=True)]
            return self.opened(gates, tf.add_n(kept))
        if self._is_narrow():
            forgets = active_kernels().product(hidden, self.forget_kernel(), forget)
            forgets = tf.reshape(forgets, [-1, arity, units])
        else:
            forgets = tf.reshape(tf.matmul(hidden, self.forget_kernel()), [-1, arity, units])
            forgets += tf.expand_dims(forget, 1)
        return self.opened(gates, tf.reduce_sum(pointwise.forget(forgets, memory), axis=1))

    def prepare(self, features: tf.Tensor) -> tuple[InputProjection, tf.Tensor]:
        """What nodes bring to the gates i, o, c, and W x + b for f, for each child if few."""
        return self._for_each_child(*super().prepare(features))

    def prepare_without(self, size: int, nodes: tf.Tensor) -> tuple[InputProjection, tf.Tensor]:
        """The same of nodes without features."""
        return self._for_each_child(*super().prepare_without(size, nodes))

    def _for_each_child(
        self, input_projection: InputProjection, forget: tf.Tensor
    ) -> tuple[InputProjection, tf.Tensor]:
        if active_kernels().gates_apart or not self._is_narrow():
            return input_projection, forget
        return input_projection, tf.tile(forget, [1, self.arity])

    def _is_narrow(self) -> bool:
        return self.arity <= FEW_SLOTS

    def forget_kernel(self) -> tf.Tensor:
        """U of the gates f_1 to f_arity."""
        return self.of_gates(self.recurrent_kernel, 3)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"arity": self.arity, **super().get_config()}
