"""What `TreeRecursive` applies to the nodes of one level: the protocol of its cells."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import tensorflow as tf

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
    """Base of the cells: the states of nodes from their features and their children's states.

    A cell of your own says how wide its states are, and what one level is.

    Attributes:
        state_size: int, or tuple of int where there are several states. The first state is the
            node's vector, which `TreeRecursive` returns.
        arity: the most children that a node may have, or None for any number. With an arity the
            children come with their slots, and a node with more children is refused.

    Input shape:
        (nodes, features), and `children`: the `Children` of these nodes.

    Output shape:
        (nodes, state size), one for each state.

    Example:
        >>> import keras, keras_blocks as kb, tensorflow as tf
        >>> class MeanCell(kb.TreeCell):
        ...     def __init__(self, units, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.state_size = units
        ...         self.dense = keras.layers.Dense(units, "tanh")
        ...
        ...     def call(self, inputs, children):
        ...         mean = children.sum(children.states[0]) / tf.maximum(children.number(), 1)
        ...         return self.dense(tf.concat([inputs, mean], axis=-1))
        >>> features = tf.ragged.constant([[[1.0], [2.0], [3.0]]], ragged_rank=1)
        >>> kb.TreeRecursive(MeanCell(4))([features, tf.ragged.constant([[-1, 0, 0]])]).shape
        TensorShape([1, 4])
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


def check_arity(arity: Any, owner: str) -> int:
    """The arity itself, if it is a positive integer."""
    if isinstance(arity, int) and arity >= 1:
        return arity
    raise ValueError(f"{owner}: `arity` must be a positive integer. Received: {arity!r}")
