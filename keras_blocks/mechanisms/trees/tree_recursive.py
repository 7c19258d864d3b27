"""TreeRecursive: a cell applied to every node of a batch of trees."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import tensorflow as tf

from keras_blocks import ragged
from keras_blocks.copying import unbuilt_copy
from keras_blocks.mechanisms.lifting import PACKAGE, Lifting, keeping_losses_out, unquantized_policy
from keras_blocks.mechanisms.trees.cells.base import TreeCell, check_arity, state_sizes
from keras_blocks.mechanisms.trees.cells.layer import LayerCell
from keras_blocks.mechanisms.trees.features import NodeFeatures
from keras_blocks.mechanisms.trees.inputs import TreeInputs, check_shapes, given_inputs
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.passes.downward import DownwardPass
from keras_blocks.mechanisms.trees.passes.upward_nary import climb
from keras_blocks.mechanisms.trees.schedule import Schedule
from keras_blocks.refusals import KnowsTwins, check_features

_MERGES = {
    "concat": lambda up, down: tf.concat([up, down], axis=-1),
    "sum": tf.add,
    "mul": tf.multiply,
    "ave": lambda up, down: (up + down) / 2,
}
_CHOICES = {
    "direction": ("up", "down", "both"),
    "merge_mode": tuple(_MERGES),
    "features_on": ("nodes", "leaves"),
    "forests": ("refuse", "sum"),
}


@keras.saving.register_keras_serializable(package=PACKAGE)
class TreeRecursive(KnowsTwins, Lifting):
    """The recursive application of a layer to trees, from the leaves to the root, or back down.

    For a node with features x and children k, whose vectors are y_k:

        y = layer(concat(x, y_1, ..., y_arity))     any layer, zeros where there is no child
        y = layer(concat(x, sum of y_k))            with `combine`, for any number of children
        y = cell(x, children)                       a Tree-LSTM cell, or a cell of your own

    Each level of the whole batch is one call of the layer, the deepest level first, so the cost
    hangs on the number of nodes and not on the number of trees. On the way down the parent stands
    in the place of the children, and the root has none.

    Args:
        layer: `ChildSumTreeLSTMCell`, `NaryTreeLSTMCell`, `TreeGRUCell`, `RecursiveTensorCell` or
            another `TreeCell`; or any layer from vectors to vectors: a block, a stock layer, a
            layer of your own, a whole model.
        arity: int, for a plain layer the most children that a node may have, 2 by default. Cells
            know theirs.
        combine: `"sum"`, `"mean"` or `"max"`, for a plain layer: one vector stands for all
            children, of any number. Cells know theirs.
        direction: `"up"`, from the leaves to the root; `"down"`, which gives each node the context
            of its ancestors; or `"both"`, with a second layer like the first for the way down.
        merge_mode: `"concat"`, `"sum"`, `"mul"` or `"ave"`, how `"both"` joins the two ways.
        features_on: `"nodes"`, or `"leaves"`: the features are those of the leaves alone, in the
            order of the leaves' indices. Zeros stand for those of inner nodes.
        forests: `"refuse"`, or `"sum"`: a row may have several roots, whose vectors are summed.
        return_nodes: bool, give the vectors of all nodes, not only of the roots. The way down has
            no one last node, and needs it.
        recurrent_dropout: float in [0, 1), the share of the first state that is dropped on its way
            from node to node while training, the same along a whole tree.
        seed: int, for that dropout.

    Call arguments:
        inputs: list, `[features, parents]` or `[features, parents, edges]`.
        training: bool, whether the layer runs in training mode.

    Input shape:
        features (batch, None, size), ragged: a vector for each node, or each leaf. parents
        (batch, None), ragged, int32 or int64: the index of each node's parent in its own tree, -1
        at the root; or what `trees.schedule` makes of them. The nodes of a tree may stand in any
        order. edges (batch, None), ragged, int32 or int64: for each node the label of the edge to
        its parent, from 0, in cells with `edge_labels`; where children have slots, the slot of the
        node, which is its place among its siblings otherwise. Those of roots mean nothing. Dense
        inputs are trees of one size.

    Output shape:
        (batch, units), the vector of each root, zeros for a tree without nodes. With `return_nodes`
        (batch, None, units), ragged where the input is, in the order of the nodes.

    Raises:
        TreeError: parents that are those of no tree, a node with too many children, features and
            parents with different rows; the message names tree and node. In a graph, as in `fit`
            and `predict`, it is a tf.errors.InvalidArgumentError with this message.
        ValueError: an input of the wrong rank or dtype, or an argument without a meaning here.

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
        >>> both = kb.TreeRecursive(kb.TreeGRUCell(5), direction="both", return_nodes=True)
        >>> both([nodes, parents]).shape
        TensorShape([2, None, 10])

    Reference:
        Socher, Manning, Ng, "Learning Continuous Phrase Representations and Syntactic Parsing with
        Recursive Neural Networks", 2010.
        Tai, Socher, Manning, 2015, https://arxiv.org/abs/1503.00075.
    """

    twin_arguments: ClassVar = {
        "cell": "layer",
        "max_children": "arity",
        "num_children": "arity",
        "reduce": "combine",
        "go_backwards": "For the way from the root to the leaves say direction='down'.",
        "return_sequences": "return_nodes",
        "dropout": "recurrent_dropout",
        "units": "It belongs to the cell: TreeRecursive(kb.ChildSumTreeLSTMCell(units)).",
    }

    def __init__(
        self,
        layer: keras.layers.Layer,
        arity: int | None = None,
        combine: str | None = None,
        direction: str = "up",
        merge_mode: str = "concat",
        features_on: str = "nodes",
        forests: str = "refuse",
        return_nodes: bool = False,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ):
        # The cell is called without Keras's casts between, so both compute in one dtype.
        if isinstance(layer, keras.layers.Layer):
            kwargs.setdefault("dtype", unquantized_policy(layer))
        super().__init__(layer, **kwargs)
        _check_computes_alike(layer, self)
        # XLA wants constant shapes, and the size of a level depends on the trees.
        self.supports_jit = False
        self.arity, self.combine = arity, combine
        self.direction = _choice("direction", direction)
        self.merge_mode = _choice("merge_mode", merge_mode)
        self.features_on = _choice("features_on", features_on)
        self.forests = _choice("forests", forests)
        self.return_nodes = return_nodes
        if direction != "up" and not return_nodes:
            raise ValueError(
                f"TreeRecursive: with direction={direction!r} no one node is the last, as the root "
                f"is on the way up. Say return_nodes=True, and pool or pick the nodes behind."
            )
        self.recurrent_dropout = _share(recurrent_dropout)
        self.seed = seed
        self._seeds = keras.random.SeedGenerator(seed) if recurrent_dropout else None
        self.cell = _as_cell(layer, arity, combine)
        self.down_cell = None
        if direction == "both":
            self.down_cell = _as_cell(unbuilt_copy(layer), arity, combine)

    def build(self, input_shape: Any) -> None:
        """Builds the cells for features of this shape."""
        check_shapes(given_inputs(input_shape, "input shapes", self.cell))
        for cell in filter(None, (self.cell, self.down_cell)):
            if not cell.built:
                cell.build((None, input_shape[0][-1]))
                cell.features_width = input_shape[0][-1]

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The vectors of the roots, or of all nodes."""
        training = bool(training)
        on_leaves = self.features_on == "leaves"
        trees = TreeInputs(inputs, self.cell, on_leaves, self.forests == "sum")
        check_features(self, getattr(self.cell, "features_width", None), trees.features.shape)
        plan = trees.plan
        features = NodeFeatures(trees.features, plan, on_leaves)
        batch = features, plan, trees.edges, self._kept(trees, plan, training), training
        with keeping_losses_out(self):
            return self._run(trees, batch)

    def _run(self, trees: TreeInputs, batch: tuple) -> Any:
        way_up = active_kernels().climb or climb
        if not self.return_nodes:
            number = tf.shape(trees.row_splits, tf.int64) - 1
            return way_up(self.cell, *batch).roots(number)
        first = DownwardPass if self.direction == "down" else way_up
        vectors = first(self.cell, *batch).nodes()
        if self.down_cell is not None:
            down = DownwardPass(self.down_cell, *batch).nodes()
            vectors = _MERGES[self.merge_mode](vectors, down)
        return trees.as_given(vectors)

    def _kept(self, trees: TreeInputs, plan: Schedule, training: bool) -> tf.Tensor | None:
        """(nodes, state size) in the order of the plan: 0 where a state is dropped."""
        if not (training and self.recurrent_dropout):
            return None
        size = state_sizes(self.cell)[0]
        ones = tf.ones(tf.stack([tf.size(trees.row_splits) - 1, size]), self.compute_dtype)
        kept = keras.random.dropout(ones, self.recurrent_dropout, seed=self._seeds)
        return tf.gather(kept, tf.gather(plan.row, plan.order))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(batch, units), or (batch, None, units) for all nodes."""
        features, parents, *_ = given_inputs(input_shape, "input shapes", self.cell)
        check_features(self, getattr(self.cell, "features_width", None), features)
        if not self.cell.built:
            self.build(input_shape)
        units = state_sizes(self.cell)[0]
        if self.direction == "both" and self.merge_mode == "concat":
            units *= 2
        return (*parents[:2], units) if self.return_nodes else (features[0], units)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        """The symbolic output, ragged over the nodes where the input is."""
        given = given_inputs(inputs, "tensors", self.cell)
        shape = self.compute_output_shape([tensor.shape for tensor in given])
        # Mixed precision casts symbolic features, and forgets that they are ragged.
        if self.return_nodes and ragged.is_ragged(given[1]):
            return ragged.ragged_spec(shape, self.compute_dtype)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments, the lifted layer serialised among them."""
        return {
            "arity": self.arity,
            "combine": self.combine,
            "direction": self.direction,
            "merge_mode": self.merge_mode,
            "features_on": self.features_on,
            "forests": self.forests,
            "return_nodes": self.return_nodes,
            "recurrent_dropout": self.recurrent_dropout,
            "seed": self.seed,
            **super().get_config(),
        }


def _as_cell(layer: keras.layers.Layer, arity: int | None, combine: str | None) -> TreeCell:
    """The cell itself, or a plain layer as one."""
    if isinstance(layer, TreeCell):
        for name, value in (("arity", arity), ("combine", combine)):
            if value is not None and value != getattr(layer, name):
                raise ValueError(
                    f"TreeRecursive: `{name}` is for plain layers, and {type(layer).__name__} has "
                    f"{getattr(layer, name)!r}. Received: {value!r}. Leave `{name}` out."
                )
        return layer
    if combine is None:
        arity = check_arity(2 if arity is None else arity, "TreeRecursive")
    elif arity is not None:
        raise ValueError(
            f"TreeRecursive: with `combine` a node may have any number of children. Received: "
            f"combine={combine!r} and arity={arity!r}. Leave one of them out."
        )
    return LayerCell(layer, arity, combine, dtype=unquantized_policy(layer))


def _check_computes_alike(layer: keras.layers.Layer, owner: keras.layers.Layer) -> None:
    """Refuses a layer of another dtype, or one whose losses would come from inside the loop."""
    if layer.compute_dtype != owner.compute_dtype:
        raise ValueError(
            f"TreeRecursive: the lifted layer '{layer.name}' computes in {layer.compute_dtype}, "
            f"and `dtype` asks for {owner.compute_dtype}. Leave `dtype` out, or give the layer the "
            f"same."
        )
    for inner in layer._flatten_layers():
        if inner.activity_regularizer is not None:
            raise ValueError(
                f"TreeRecursive: the layer '{inner.name}' has an activity_regularizer, whose "
                f"losses cannot leave the loop over levels. Put "
                f"keras.layers.ActivityRegularization behind TreeRecursive(return_nodes=True)."
            )


def _choice(argument: str, value: Any) -> str:
    if value in _CHOICES[argument]:
        return value
    raise ValueError(
        f"TreeRecursive: `{argument}` must be one of {_CHOICES[argument]}. Received: {value!r}"
    )


def _share(value: Any) -> float:
    if isinstance(value, int | float) and 0 <= value < 1:
        return float(value)
    raise ValueError(
        f"TreeRecursive: `recurrent_dropout` must be a share from 0 to below 1. Received: {value!r}"
    )
