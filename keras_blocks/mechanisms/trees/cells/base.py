"""What `TreeRecursive` applies to the nodes of one level: the protocol of its cells."""

from __future__ import annotations

import operator
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from keras_blocks.refusals import KnowsTwins

COMBINATIONS = ("sum", "mean", "max")

FEW_SLOTS = 4
"""What is kept for so many slots of every node at once is the faster way; beyond, memory would grow
with the arity."""


class Children(NamedTuple):
    """Nodes on their way to their parents, for the messages that they send.

    Args:
        states: tuple of tensors (children, state size), in the order of the cell's states.
        owner: int64 (children, 1), which of the parents each child belongs to.
        edges: int64 (children,), the label of the edge above each child, or None without labels.
    """

    states: tuple[tf.Tensor, ...]
    owner: tf.Tensor
    edges: tf.Tensor | None

    def of_owner(self, values: tf.Tensor) -> tf.Tensor:
        """(parents, width) to (children, width): for each child the row of its parent."""
        return tf.gather_nd(values, self.owner)


class TreeCell(KnowsTwins, keras.layers.Layer):
    """Base of the cells: the states of nodes from their features and their children's states.

    Every child sends its parent a message, its states unless the cell says otherwise. The messages
    that reach a node are combined, and the cell computes the node's states from the result. All
    nodes of a level, in all trees of the batch, are one call.

    Attributes:
        state_size: int, or tuple of int where there are several states. The first state is the
            node's vector, which `TreeRecursive` returns.
        combine: `"sum"`, `"mean"` or `"max"`, over the messages of a node's children.
        arity: the most children that a node may have, or None for any number. With an arity nothing
            is combined: the messages stand side by side, zeros where there is no child, and a node
            with more children is refused.
        edge_labels: int, how many labels edges may have, or None for a cell that takes none. With
            an arity the label of an edge is the child's place, and needs no attribute.

    Input shape:
        What `prepare` gives of (nodes, features), the features themselves by default, and
        `children`: the combined messages (nodes, width), or (nodes, arity, width) with an arity.
        Where a message is a tuple, they are one too.

    Output shape:
        (nodes, state size), one for each state.

    Example:
        >>> import keras, keras_blocks as kb, tensorflow as tf
        >>> class MeanCell(kb.TreeCell):
        ...     combine = "mean"
        ...
        ...     def __init__(self, units, **kwargs):
        ...         super().__init__(**kwargs)
        ...         self.state_size = units
        ...         self.dense = keras.layers.Dense(units, "tanh")
        ...
        ...     def call(self, inputs, children):
        ...         return self.dense(keras.ops.concatenate([inputs, children], axis=-1))
        >>> features = tf.ragged.constant([[[1.0], [2.0], [3.0]]], ragged_rank=1)
        >>> kb.TreeRecursive(MeanCell(4))([features, tf.ragged.constant([[-1, 0, 0]])]).shape
        TensorShape([1, 4])
    """

    twin_arguments: ClassVar = {
        "hidden_size": "units",
        "h_size": "units",
        "num_units": "units",
        "n_ary": "arity",
        "num_children": "arity",
        "max_children": "arity",
        "num_labels": "edge_labels",
    }

    state_size: int | tuple[int, ...]
    combine: str = "sum"
    arity: int | None = None
    edge_labels: int | None = None

    def build(self, input_shape: Any) -> None:
        """Builds the sub-layers by a call on symbols.

        Override it for weights of the cell's own.
        """

        def one_level(features: tf.Tensor) -> Any:
            inputs = self.prepare(features)
            return self.call(inputs, children=self.no_messages(inputs))

        # The layer's own method would ask `compute_output_shape`, and call nothing.
        symbolic = keras.Operation(name=self.name)
        symbolic.call = one_level
        symbolic.compute_output_spec(keras.KerasTensor(input_shape, self.compute_dtype))

    def prepare(self, features: tf.Tensor) -> Any:
        """The part of a node that needs no children: a tensor (nodes, any width), or a tuple.

        It is done once for the nodes of all levels; `call` gets one level of it as `inputs`.
        """
        return features

    def prepare_without(self, size: int, nodes: tf.Tensor) -> Any:
        """What `prepare` would give of zeros, for so many nodes without features.

        Args:
            size: int, the width of the features that others have.
            nodes: int32 (), how many nodes.
        """
        one = self.prepare(tf.zeros([1, size], self.compute_dtype))
        return keras.tree.map_structure(
            lambda x: tf.broadcast_to(x, tf.stack([nodes, x.shape[-1]])), one
        )

    def message(self, inputs: Any, children: Children) -> Any:
        """What each child sends to its parent: a tensor (children, any width), or a tuple.

        Args:
            inputs: what `prepare` gave for the parents; see `Children.of_owner`.
            children: the children.
        """
        return children.states if len(children.states) > 1 else children.states[0]

    def call(self, inputs: Any, children: Any) -> Any:
        """The states of one level: a tuple of tensors (nodes, state size), or one alone."""
        raise NotImplementedError(
            f"{type(self).__name__}: give the cell a method `call(self, inputs, children)`."
        )

    def leaves(self, features: tf.Tensor) -> Any:
        """The states of nodes without children: those of a call with zeros for them."""
        inputs = self.prepare(features)
        return self(inputs, children=self.no_messages(inputs))

    def no_messages(self, inputs: Any) -> Any:
        """Zeros in the place of what the children of as many nodes would send."""
        states = tuple(tf.zeros([0, size], self.compute_dtype) for size in state_sizes(self))
        edges = None if self.edge_labels is None else tf.zeros([0], tf.int64)
        message = self.message(inputs, Children(states, tf.zeros([0, 1], tf.int64), edges))
        nodes = tf.shape(keras.tree.flatten(inputs)[0])[0]
        slots = [] if self.arity is None else [self.arity]
        return keras.tree.map_structure(
            lambda m: tf.zeros(tf.stack([nodes, *slots, m.shape[-1]]), m.dtype), message
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shapes of the states of nodes with features of this shape."""
        shapes = [(*input_shape[:-1], size) for size in state_sizes(self)]
        return shapes[0] if isinstance(self.state_size, int) else tuple(shapes)


def state_sizes(cell: TreeCell) -> tuple[int, ...]:
    """The widths of the cell's states as a tuple."""
    sizes = cell.state_size
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)


def check_units(units: Any, owner: str) -> int:
    """The number of units itself, if it is a positive integer."""
    return _check_positive(units, "units", owner)


def check_arity(arity: Any, owner: str) -> int:
    """The arity itself, if it is a positive integer."""
    return _check_positive(arity, "arity", owner)


def check_edge_labels(edge_labels: Any, owner: str) -> int | None:
    """The number of labels itself, if it is a positive integer or None."""
    return None if edge_labels is None else _check_positive(edge_labels, "edge_labels", owner)


def _check_positive(value: Any, argument: str, owner: str) -> int:
    if hasattr(value, "__index__") and not isinstance(value, bool) and operator.index(value) >= 1:
        return operator.index(value)
    raise ValueError(f"{owner}: `{argument}` must be a positive integer. Received: {value!r}")


def check_combine(combine: Any, owner: str) -> str:
    """The name of a combination itself, if it is one."""
    if combine in COMBINATIONS:
        return combine
    raise ValueError(f"{owner}: `combine` must be one of {COMBINATIONS}. Received: {combine!r}")
