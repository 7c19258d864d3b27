"""TreeRecursive: a cell applied to every node of a batch of trees, from the leaves to the root."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

# There is no public way to ask whether a call only looks for shapes.
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from keras_blocks import ragged
from keras_blocks.mechanisms import tree_checks
from keras_blocks.mechanisms.lifting import PACKAGE, Lifting
from keras_blocks.mechanisms.tree_cell import Children, TreeCell, check_arity, state_sizes
from keras_blocks.mechanisms.tree_layer_cell import LayerCell
from keras_blocks.mechanisms.tree_levels import Buffer, Nowhere, Pile, Slices, Stack
from keras_blocks.mechanisms.tree_schedule import Schedule, schedule

States = tuple[tf.Tensor, ...]


@keras.saving.register_keras_serializable(package=PACKAGE)
class TreeRecursive(Lifting):
    """The recursive application of a layer to trees, from the leaves to the root.

    For a node with features x and children k, whose vectors are y_k:

        y = layer(concat(x, y_1, ..., y_arity))     any layer, zeros where there is no child
        y = cell(x, children)                       a Tree-LSTM cell, or a cell of your own

    Each level of the whole batch is one call of the layer, the deepest level first, so the cost
    hangs on the number of nodes and not on the number of trees.

    Args:
        layer: `ChildSumTreeLSTMCell`, `NaryTreeLSTMCell` or another `TreeCell`; or any layer from
            vectors to vectors: a block, a stock layer, a layer of your own, a whole model.
        arity: int, for a plain layer the most children that a node may have, 2 by default. Cells
            know theirs.
        return_nodes: bool, give the vectors of all nodes, not only of the roots.

    Call arguments:
        inputs: list of two, `[features, parents]`.
        training: bool, whether the layer runs in training mode.

    Input shape:
        features (batch, None, size), ragged: a vector for each node. parents (batch, None), ragged,
        int32 or int64, the same rows: the index of each node's parent in its own tree, -1 at the
        root. The nodes of a tree may stand in any order. Dense inputs are trees of one size.

    Output shape:
        (batch, units), the vector of each root, zeros for a tree without nodes. With `return_nodes`
        (batch, None, units), ragged where the input is, in the order of the nodes.

    Raises:
        TreeError: parents that are those of no tree, a node with too many children, features and
            parents with different rows; the message names tree and node. In a graph, as in `fit`
            and `predict`, it is a tf.errors.InvalidArgumentError with this message.
        ValueError: an input of the wrong rank or dtype.

    Example:
        >>> import keras, tensorflow as tf
        >>> import keras_blocks as kb
        >>> tokens = tf.ragged.constant([[5, 3, 4], [7]])
        >>> parents = tf.ragged.constant([[-1, 0, 0], [-1]])
        >>> nodes = kb.Embedding(10, 4)(tokens)
        >>> kb.TreeRecursive(kb.ChildSumTreeLSTMCell(8))([nodes, parents]).shape
        TensorShape([2, 8])
        >>> kb.TreeRecursive(keras.layers.Dense(6), return_nodes=True)([nodes, parents]).shape
        TensorShape([2, None, 6])

    Reference:
        Socher, Manning, Ng, "Learning Continuous Phrase Representations and Syntactic Parsing with
        Recursive Neural Networks", 2010.
        Tai, Socher, Manning, 2015, https://arxiv.org/abs/1503.00075.
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        arity: int | None = None,
        return_nodes: bool = False,
        **kwargs: Any,
    ):
        # The cell is called without Keras's casts between, so both compute in one dtype.
        kwargs.setdefault("dtype", getattr(layer, "dtype_policy", None))
        super().__init__(layer, **kwargs)
        # XLA wants constant shapes, and the size of a level depends on the trees.
        self.supports_jit = False
        self.arity = arity
        self.return_nodes = return_nodes
        if not isinstance(layer, TreeCell):
            slots = check_arity(2 if arity is None else arity, "TreeRecursive")
            self.cell: TreeCell = LayerCell(layer, slots, dtype=layer.dtype_policy)
        elif arity is None or arity == layer.arity:
            self.cell = layer
        else:
            raise ValueError(
                f"TreeRecursive: `arity` is for plain layers, and {type(layer).__name__} has "
                f"{layer.arity}. Received: {arity!r}. Leave `arity` out."
            )

    def build(self, input_shape: Any) -> None:
        """Builds the cell for features of this shape."""
        features, parents = _pair(input_shape, "input shapes")
        if len(features) != 3 or features[-1] is None or len(parents) != 2:
            raise ValueError(
                "TreeRecursive: expected features of shape (batch, nodes, size) with a known size "
                "and parents of shape (batch, nodes). "
                f"Received: {tuple(features)} and {tuple(parents)}."
            )
        if not self.cell.built:
            self.cell.build((None, features[-1]))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The vectors of the roots, or of all nodes."""
        given, parents = _pair(inputs, "tensors")
        features, parents = _trees(given, "features", 3), _trees(parents, "parents", 2)
        with tf.control_dependencies(tree_checks.same_rows(features, parents)):
            parents = parents.with_values(tf.identity(tf.cast(parents.values, tf.int64)))
        plan = schedule(parents, self.cell.arity)
        climb = _Climb(self.cell, features.values, plan, bool(training))
        if not self.return_nodes:
            return climb.roots(parents.nrows())
        vectors = climb.nodes()
        if isinstance(given, tf.RaggedTensor):
            return ragged.from_row_splits(vectors, features.row_splits)
        width = tf.constant([vectors.shape[-1]])
        return tf.reshape(vectors, tf.concat([tf.shape(given)[:2], width], axis=0))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, units), or (batch, None, units) for all nodes."""
        features, _ = _pair(input_shape, "input shapes")
        if not self.cell.built:
            self.build(input_shape)
        units = state_sizes(self.cell)[0]
        return (*features[:2], units) if self.return_nodes else (features[0], units)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """The symbolic output, ragged over the nodes where the input is."""
        features, parents = _pair(inputs, "tensors")
        shape = self.compute_output_shape([features.shape, parents.shape])
        # Mixed precision casts symbolic features, and forgets that they are ragged.
        if self.return_nodes and ragged.is_ragged(parents):
            return ragged.ragged_spec(shape, self.compute_dtype)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments, the lifted layer serialised among them."""
        return {"arity": self.arity, "return_nodes": self.return_nodes, **super().get_config()}


class _Climb:
    """One way up: the loop over the levels of a batch of trees.

    Args:
        cell: what is applied to each level.
        features: (all nodes, size).
        plan: the order of the nodes.
        training: bool, whether the gradient will be asked for: then levels are kept in lists.
    """

    def __init__(self, cell: TreeCell, features: tf.Tensor, plan: Schedule, training: bool):
        self.cell, self.plan, self.training = cell, plan, training
        taken = Stack if training else Slices
        inner, outer = tf.split(plan.order, tf.stack([plan.inner, plan.outer]))
        self.leaf_states = _states(cell.leaves(tf.gather(features, outer)))
        self.leaves = [taken(state, plan.leaf_counts) for state in self.leaf_states]
        # The deepest level has no inner nodes.
        prepared = cell.prepare(tf.gather(features, inner))
        self.inputs = taken(prepared, plan.inner_counts[:-1])
        counts = plan.inner_counts + plan.leaf_counts
        self.owners = Slices(plan.owner, counts)
        self.slots = None if plan.slot is None else Slices(plan.slot, counts)

    def roots(self, batch: tf.Tensor) -> tf.Tensor:
        """(batch, units): the vector of each root, zeros for a tree without nodes."""
        states, _ = self._loop(Nowhere())
        rows = self.plan.row[: tf.size(states[0][:, 0], out_type=tf.int64)]
        shape = tf.stack([batch, tf.constant(states[0].shape[-1], tf.int64)])
        return tf.scatter_nd(rows[:, None], states[0], shape)

    def nodes(self) -> tf.Tensor:
        """(all nodes, units): the vector of each node, in the order of the features."""
        leaves = self.leaf_states[0]
        book = (Pile if self.training else Buffer)(
            self.plan.inner_counts, leaves.shape[-1], leaves.dtype
        )
        _, kept = self._loop(book)
        return tf.gather(tf.concat([book.rows(kept), leaves], axis=0), self.plan.rank)

    def _loop(self, book: Any) -> tuple[States, Any]:
        """The states of all roots, and what the book holds of the inner nodes."""
        sizes = state_sizes(self.cell)
        deepest = self.plan.levels - 1
        states = tuple(tf.zeros([0, size], self.leaf_states[0].dtype) for size in sizes)
        shapes = tuple(tf.TensorShape([None, size]) for size in sizes)
        leaves = tuple(leaf.start for leaf in self.leaves)
        leaf_shapes = tuple(leaf.shape for leaf in self.leaves)

        def step(level: tf.Tensor, states: States, leaves: Any, inputs: Any, kept: Any) -> Any:
            children, leaves = self._children(level, states, leaves)
            inputs_of_level, inputs = self.inputs.take(level - 1, inputs)
            states = _states(self.cell(inputs_of_level, children=children))
            return level - 1, states, leaves, inputs, book.put(states[0], level - 1, kept)

        level, states, leaves, _, kept = tf.while_loop(
            lambda level, *_: level > 0,
            step,
            (deepest, states, leaves, self.inputs.start, book.start),
            (deepest.shape, shapes, leaf_shapes, self.inputs.shape, book.shape),
        )
        return self._whole_level(level, states, leaves)[0], kept

    def _children(self, level: tf.Tensor, states: States, leaves: Any) -> tuple[Children, Any]:
        states, leaves = self._whole_level(level, states, leaves)
        slots = None if self.slots is None else self.slots.read(level)
        nodes = tf.gather(self.plan.inner_counts, level - 1)
        return Children(states, self.owners.read(level), slots, nodes), leaves

    def _whole_level(self, level: tf.Tensor, states: States, leaves: Any) -> tuple[States, Any]:
        """The states of the inner nodes of a level, and behind them those of its leaves."""
        taken = [leaf.take(level, kept) for leaf, kept in zip(self.leaves, leaves, strict=True)]
        whole = [tf.concat([s, rows], axis=0) for s, (rows, _) in zip(states, taken, strict=True)]
        return tuple(whole), tuple(kept for _, kept in taken)


def _states(outputs: Any) -> States:
    return tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)


def _pair(inputs: Any, what: str) -> Any:
    if isinstance(inputs, list | tuple) and len(inputs) == 2:
        return inputs
    raise ValueError(
        f"TreeRecursive: expected a list of two {what}, [features, parents]. Received: {inputs!r}"
    )


def _trees(x: Any, name: str, rank: int) -> tf.RaggedTensor:
    """The input as a ragged tensor of rows of nodes."""
    form = "(batch, nodes, size)" if rank == 3 else "(batch, nodes)"
    ragged_rank = x.ragged_rank if isinstance(x, tf.RaggedTensor) else 1
    if x.shape.rank != rank or ragged_rank != 1:
        raise ValueError(
            f"TreeRecursive: `{name}` must have the shape {form}, ragged over the nodes alone. "
            f"Received: shape {x.shape} with {ragged_rank} ragged axes."
        )
    if rank == 2 and not x.dtype.is_integer:
        if not in_symbolic_scope():
            raise ValueError(
                "TreeRecursive: `parents` must be int32 or int64, the index of each node's parent "
                f"in its own tree. Received: dtype {x.dtype.name}."
            )
        # A saved subclassed model finds its shapes on floats, whatever its inputs are.
        x = tf.cast(x, tf.int64)
    if isinstance(x, tf.RaggedTensor):
        return x.with_row_splits_dtype(tf.int64)
    size = tf.shape(x, out_type=tf.int64)
    rows = tf.range(size[0] + 1) * size[1]
    return ragged.from_row_splits(tf.reshape(x, tf.concat([[-1], size[2:]], axis=0)), rows)
