"""What `TreeRecursive` applies to the nodes of one level: the protocol, and the cells.

A cell is a Keras layer that gives the states of nodes from their features and from the states of
their children. A cell of your own says how wide its states are, and what one level is:

    class MeanCell(TreeCell):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.state_size = units
            self.dense = keras.layers.Dense(units, "tanh")

        def call(self, inputs, children):
            mean = children.sum(children.states[0]) / tf.maximum(children.number(), 1)
            return self.dense(tf.concat([inputs, mean], axis=-1))
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_blocks.mechanisms.lifting import PACKAGE, Lifting, build_layer, vector_output_shape
from keras_blocks.mechanisms.tree_schedule import sum_by


class Children(NamedTuple):
    """The children of the nodes of one level, all of them after one another.

    Args:
        states: tuple of tensors (children, state size), in the order of the cell's states.
        owner: int64 (children,), which of the level's nodes is the parent of each child.
        slot: int64 (children,), how many siblings of each child stand before it in the tree, or
            None for cells without an `arity`.
        nodes: int64 (), how many nodes the level has. Each has a child, except in a call for
            leaves, where there are no children at all.
    """

    states: tuple[tf.Tensor, ...]
    owner: tf.Tensor
    slot: tf.Tensor | None
    nodes: tf.Tensor

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """(children, width) to (nodes, width): the sum over each node's children."""
        return sum_by(values, self.owner, self.nodes)

    def number(self) -> tf.Tensor:
        """(nodes, 1): how many children each node has, in the dtype of the states."""
        return self.sum(tf.ones_like(self.states[0][:, :1]))

    def of_owner(self, values: tf.Tensor) -> tf.Tensor:
        """(nodes, width) to (children, width): for each child the row of its parent."""
        return tf.gather(values, self.owner)

    def slots(self, values: tf.Tensor, arity: int) -> tf.Tensor:
        """(children, width) to (nodes, arity, width): in order, zeros where there is no child."""
        width = values.shape[-1]
        places = (self.owner * arity + self.slot)[:, None]
        shape = tf.stack([self.nodes * arity, tf.constant(width, tf.int64)])
        return tf.reshape(tf.scatter_nd(places, values, shape), [-1, arity, width])


class TreeCell(keras.layers.Layer):
    """Base of the cells. Only `state_size` and `call` must be given.

    Attributes:
        state_size: int, or tuple of int where there are several states. The first state is the
            node's vector, which `TreeRecursive` returns.
        arity: the most children that a node may have, or None for any number. With an arity the
            children come with their slots, and a node with more children is refused.
    """

    state_size: int | tuple[int, ...]
    arity: int | None = None

    def build(self, input_shape: Any) -> None:
        """Builds the sub-layers by a call on symbols.

        Override it for weights of the cell's own, or where `prepare` is overridden.
        """
        index = keras.KerasTensor((None,), "int64")
        sizes = state_sizes(self)
        children = Children(
            tuple(keras.KerasTensor((None, size), self.compute_dtype) for size in sizes),
            index,
            None if self.arity is None else index,
            keras.KerasTensor((), "int64"),
        )
        features = keras.KerasTensor(input_shape, self.compute_dtype)
        # The layer's own method would ask `compute_output_shape`, and call nothing.
        keras.Operation.compute_output_spec(self, features, children=children)

    def prepare(self, features: tf.Tensor) -> tf.Tensor:
        """(nodes, features) to (nodes, any width): the part of a node that needs no children.

        It is done once for the nodes of all levels; `call` gets one level of it as `inputs`.
        """
        return features

    def call(self, inputs: tf.Tensor, children: Children) -> Any:
        """The states of one level: a tuple of tensors (nodes, state size), or one alone."""
        raise NotImplementedError(
            f"{type(self).__name__}: give the cell a method `call(self, inputs, children)`."
        )

    def leaves(self, features: tf.Tensor) -> Any:
        """The states of nodes without children, as `call` gives them."""
        nodes = tf.shape(features, out_type=tf.int64)[0]
        return self(self.prepare(features), children=self.no_children(features, nodes))

    def no_children(self, features: tf.Tensor, nodes: tf.Tensor) -> Children:
        """The children of leaves: none."""
        none = tf.zeros([0], tf.int64)
        states = tuple(tf.zeros([0, size], features.dtype) for size in state_sizes(self))
        return Children(states, none, None if self.arity is None else none, nodes)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shapes of the states of nodes with features of this shape."""
        shapes = [(*input_shape[:-1], size) for size in state_sizes(self)]
        return shapes[0] if isinstance(self.state_size, int) else tuple(shapes)


def state_sizes(cell: TreeCell) -> tuple[int, ...]:
    """The widths of the cell's states as a tuple."""
    sizes = cell.state_size
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)


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
        kernel_initializer: for W, of shape (features, 4 * units), its gates in the order i, o, u, f.
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
        kernel_initializer: for W, of shape (features, 4 * units), its gates in the order i, o, u, f.
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

    def __init__(self, units: int, arity: int, **kwargs: Any):
        super().__init__(units, **kwargs)
        self.arity = check_arity(arity, type(self).__name__)

    def build(self, input_shape: Any) -> None:
        """Creates the weights for features of this shape."""
        super().build(input_shape)
        assert self.arity is not None
        self.recurrent_kernel = self._recurrent_weight(
            (self.arity * self.units, (3 + self.arity) * self.units), "recurrent_kernel"
        )

    def call(self, inputs: tf.Tensor, children: Children) -> tuple[tf.Tensor, tf.Tensor]:
        """The states h, c of one level."""
        units, arity = self.units, self.arity
        assert arity is not None
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


@keras.saving.register_keras_serializable(package=PACKAGE)
class LayerCell(Lifting, TreeCell):
    """Any layer as a cell: y = layer(concat(x, child_1, ..., child_arity)).

    The children stand in the order of their index in the tree, zeros where there is none; so a leaf
    is layer(concat(x, 0, ..., 0)).

    Args:
        layer: any layer from vectors to vectors.
        arity: int, the most children that a node may have.
    """

    def __init__(self, layer: keras.layers.Layer, arity: int, **kwargs: Any):
        super().__init__(layer, **kwargs)
        self.arity = check_arity(arity, "TreeRecursive")

    def build(self, input_shape: Any) -> None:
        """Finds the width of the layer's output and builds it for features of this shape."""
        assert self.arity is not None
        self.state_size = _own_width(self.layer, int(input_shape[-1]), self.arity)
        build_layer(self.layer, (None, input_shape[-1] + self.arity * self.state_size))

    def call(self, inputs: tf.Tensor, children: Children) -> tf.Tensor:
        """The vectors of one level."""
        assert self.arity is not None and isinstance(self.state_size, int)
        table = children.slots(children.states[0], self.arity)
        table = tf.reshape(table, [-1, self.arity * self.state_size])
        return self.layer(tf.concat([inputs, table], axis=-1))

    def leaves(self, features: tf.Tensor) -> tf.Tensor:
        """The vectors of leaves: zeros in all slots."""
        assert self.arity is not None and isinstance(self.state_size, int)
        # As a multiple of the features this needs no dynamic shape.
        nodes = tf.shape(features)[0]
        zeros = tf.zeros(tf.stack([nodes, self.arity * self.state_size]), features.dtype)
        return self.layer(tf.concat([features, zeros], axis=-1))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"arity": self.arity, **super().get_config()}


def check_arity(arity: Any, owner: str) -> int:
    """The arity itself, if it is a positive integer."""
    if isinstance(arity, int) and arity >= 1:
        return arity
    raise ValueError(f"{owner}: `arity` must be a positive integer. Received: {arity!r}")


def _own_width(layer: keras.layers.Layer, features: int, arity: int) -> int:
    """The width w of a layer that gives w from features + arity * w."""
    if layer.built:
        probe, taken = layer, _taken_width(layer)
    else:
        # Its input needs the width of its output: ask a copy, whose weights may be wrong.
        probe, taken = layer.__class__.from_config(layer.get_config()), features + arity
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
