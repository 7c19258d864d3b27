"""The Tree-LSTM cells of Tai, Socher and Manning; `tree_cell` says what a cell is."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import PACKAGE
from keras_blocks.mechanisms.tree_cell import Children, TreeCell, check_arity


class _TreeLSTMCell(TreeCell):
    """What the Tree-LSTM cells share: the weights of a node's own features, and the gates.

    The gates stand in the order i, o, c, f: the three that a leaf needs are together, and so are
    the two that a sigmoid closes.
    """

    def __init__(
        self,
        units: int,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        if not isinstance(units, int) or units < 1:
            raise ValueError(
                f"{type(self).__name__}: `units` must be a positive integer. Received: {units!r}"
            )
        super().__init__(**kwargs)
        self.units = units
        self.state_size = (units, units)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.unit_forget_bias = unit_forget_bias
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)

    def build(self, input_shape: Any) -> None:
        """Creates the weights of the features; subclasses add those of the children."""
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 4 * self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(4 * self.units,),
                initializer=self._initial_bias,
                regularizer=self.bias_regularizer,
                name="bias",
            )

    def _initial_bias(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        bias = self.bias_initializer(shape, dtype=dtype)
        if not self.unit_forget_bias:
            return bias
        ones = tf.ones([self.units], dtype=bias.dtype)
        return tf.concat([bias[: 3 * self.units], ones], axis=0)

    def _recurrent_weight(self, shape: tuple[int, int], name: str) -> Any:
        return self.add_weight(
            shape=shape,
            initializer=self.recurrent_initializer,
            regularizer=self.recurrent_regularizer,
            name=name,
        )

    def prepare(self, features: tf.Tensor) -> tf.Tensor:
        """W x + b for the gates i, o, c, f."""
        product = tf.matmul(features, self.kernel)
        return product if self.bias is None else product + self.bias

    def leaves(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The states of leaves: nothing to forget."""
        width = 3 * self.units
        kernel, bias = tf.convert_to_tensor(self.kernel), self.bias
        gates = tf.matmul(features, tf.slice(kernel, [0, 0], [-1, width]))
        if bias is not None:
            gates += tf.slice(tf.convert_to_tensor(bias), [0], [width])
        return self._opened(gates, None)

    def _opened(self, gates: tf.Tensor, kept: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c from the gates i, o, c before their nonlinearity."""
        squashed, proposal = tf.split(gates, [2 * self.units, self.units], axis=-1)
        let_in, let_out = tf.split(tf.sigmoid(squashed), 2, axis=-1)
        memory = let_in * tf.tanh(proposal)
        if kept is not None:
            memory += kept
        return let_out * tf.tanh(memory), memory

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "unit_forget_bias": self.unit_forget_bias,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            **super().get_config(),
        }


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

    Args:
        units: int, the width of the states.
        use_bias: bool, whether to add a bias.
        kernel_initializer: for W, (features, 4 * units), its gates in the order i, o, u, f.
        recurrent_initializer: for U: `recurrent_kernel` (units, 3 * units) for i, o, u and
            `forget_kernel` (units, units).
        bias_initializer: for b, of shape (4 * units,).
        unit_forget_bias: bool, start the bias of the forget gate at 1.
        kernel_regularizer: for W.
        recurrent_regularizer: for U.
        bias_regularizer: for b.

    Example:
        >>> import keras_blocks as kb
        >>> layer = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(8))

    Reference:
        Tai, Socher, Manning, "Improved Semantic Representations From Tree-Structured Long
        Short-Term Memory Networks", 2015, https://arxiv.org/abs/1503.00075, equations 2 to 8.
    """

    def build(self, input_shape: Any) -> None:
        """Creates the weights for features of this shape."""
        super().build(input_shape)
        self.recurrent_kernel = self._recurrent_weight(
            (self.units, 3 * self.units), "recurrent_kernel"
        )
        self.forget_kernel = self._recurrent_weight((self.units, self.units), "forget_kernel")

    def call(self, inputs: tf.Tensor, children: Children) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c of one level."""
        hidden, memory = children.states
        gates, forget = tf.split(inputs, [3 * self.units, self.units], axis=-1)
        forget = children.of_owner(forget) + tf.matmul(hidden, self.forget_kernel)
        kept = tf.sigmoid(forget) * memory
        # Both sums in one operation.
        sums = children.sum(tf.concat([hidden, kept], axis=-1))
        hidden, kept = tf.split(sums, 2, axis=-1)
        return self._opened(gates + tf.matmul(hidden, self.recurrent_kernel), kept)


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

    The children stand in the order of their index in the tree.

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

    arity: int

    def __init__(self, units: int, arity: int, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.arity = check_arity(arity, type(self).__name__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for features of this shape."""
        super().build(input_shape)
        self.recurrent_kernel = self._recurrent_weight(
            (self.arity * self.units, (3 + self.arity) * self.units), "recurrent_kernel"
        )

    def call(self, inputs: tf.Tensor, children: Children) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c of one level."""
        units, arity = self.units, self.arity
        # Both tables in one operation.
        table = children.slots(tf.concat(children.states, axis=-1), arity)
        hidden, memory = tf.split(table, 2, axis=-1)
        product = tf.matmul(tf.reshape(hidden, [-1, arity * units]), self.recurrent_kernel)
        gates, forget = tf.split(inputs, [3 * units, units], axis=-1)
        gates_of_children, forgets = tf.split(product, [3 * units, arity * units], axis=-1)
        forgets = tf.reshape(forgets, [-1, arity, units]) + forget[:, None, :]
        kept = tf.reduce_sum(tf.sigmoid(forgets) * memory, axis=1)
        return self._opened(gates + gates_of_children, kept)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"arity": self.arity, **super().get_config()}
