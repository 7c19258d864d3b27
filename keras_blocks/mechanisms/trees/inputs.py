"""What `TreeRecursive` is given, checked and brought into one form."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# There is no public way to ask whether a call only looks for shapes.
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from keras_blocks import ragged
from keras_blocks.mechanisms.trees import checks as tree_checks
from keras_blocks.mechanisms.trees.cells.base import TreeCell
from keras_blocks.mechanisms.trees.packed_schedule import COLUMNS, unpacked
from keras_blocks.mechanisms.trees.schedule import schedule

_NAMES = ("features", "parents", "edges")


class TreeInputs:
    """The inputs of one call.

    Args:
        inputs: list, `[features, parents]` or `[features, parents, edges]`.
        cell: the cell that they are for.
        on_leaves: bool, whether the features are those of the leaves alone.
        forests: bool, whether a row may have several roots.

    Attributes:
        features: (nodes, size), or (leaves, size), of all trees after one another.
        row_splits: int64 (batch + 1,) where the nodes of each tree begin.
        plan: the order of the nodes.
        edges: int64 (nodes,) the labels as given, or None where the cell asks for none.
    """

    def __init__(self, inputs: Any, cell: TreeCell, on_leaves: bool, forests: bool):
        given = given_inputs(inputs, "tensors", cell)
        self.given = given[1]
        rows = {name: _as_rows(x, name) for name, x in zip(_NAMES, given, strict=False)}
        features, parents, edges = rows["features"], rows.pop("parents"), rows.get("edges")
        if on_leaves:
            del rows["features"]
        with tf.control_dependencies(tree_checks.same_rows(rows, parents)):
            parents = parents.with_values(tf.cast(tf.identity(parents.values), tf.int64))
        self.row_splits = parents.row_splits
        labels = None if edges is None else edges.values
        slots = None if cell.arity is None else labels
        if parents.values.shape.rank == 2:
            self.plan = unpacked(parents, cell.arity, slots, forests)
        else:
            self.plan = schedule(parents, cell.arity, slots, forests)
        self.edges = None
        if labels is not None and cell.edge_labels is not None and cell.arity is None:
            labels = tf.cast(labels, tf.int64)
            labels = tf.where(self.plan.is_root, tf.zeros_like(labels), labels)
            checks = tree_checks.known_labels(labels, cell.edge_labels, parents)
            with tf.control_dependencies(checks):
                self.edges = tf.identity(labels)
        self.features = features.values
        if on_leaves:
            plan, trees = self.plan, parents.nrows()
            checks = tree_checks.a_row_for_each_leaf(features, plan.row, plan.number, trees)
            with tf.control_dependencies(checks):
                self.features = tf.identity(self.features)

    def as_given(self, vectors: tf.Tensor) -> Any:
        """The vectors of all nodes, ragged or dense as the parents were given."""
        if isinstance(self.given, tf.RaggedTensor):
            return ragged.from_row_splits(vectors, self.row_splits)
        width = tf.constant([vectors.shape[-1]])
        return tf.reshape(vectors, tf.concat([tf.shape(self.given)[:2], width], axis=0))


def given_inputs(inputs: Any, what: str, cell: TreeCell) -> Any:
    """The inputs themselves, if they are as many as the cell takes."""
    counts = [2, 3] if cell.arity is not None else [2 if cell.edge_labels is None else 3]
    given = len(inputs) if isinstance(inputs, list | tuple) else 0
    if given in counts:
        return inputs
    expected = " or ".join(f"[{', '.join(_NAMES[:count])}]" for count in counts)
    hints = {
        2: f" {type(cell).__name__} has edge_labels={cell.edge_labels}, and needs the labels.",
        3: f" {type(cell).__name__} takes no edges: give a cell with `edge_labels` or an `arity`.",
    }
    hint = hints.get(given, "")
    raise ValueError(
        f"TreeRecursive: expected a list of {what}, {expected}. Received: {inputs!r}.{hint}"
    )


def check_shapes(shapes: Any) -> None:
    """Refuses features, parents and edges of other shapes than (batch, nodes[, size])."""
    features, parents, *edges = shapes
    ranks = len(features) == 3 and len(parents) in (2, 3) and all(len(e) == 2 for e in edges)
    sizes = features[-1] is not None and (len(parents) == 2 or parents[-1] == COLUMNS)
    if not (ranks and sizes):
        raise ValueError(
            "TreeRecursive: expected features of shape (batch, nodes, size) with a known size, "
            f"parents of shape (batch, nodes), or (batch, nodes, {COLUMNS}) from trees.schedule, "
            "and edges, if any, of shape (batch, nodes). "
            f"Received: {', '.join(str(tuple(shape)) for shape in shapes)}."
        )


def _as_rows(x: Any, name: str) -> tf.RaggedTensor:
    """The input as a ragged tensor of rows of nodes."""
    form = "(batch, nodes, size)" if name == "features" else "(batch, nodes)"
    ranks = {"features": (3,), "parents": (2, 3), "edges": (2,)}[name]
    ragged_rank = x.ragged_rank if isinstance(x, tf.RaggedTensor) else 1
    if x.shape.rank not in ranks or ragged_rank != 1:
        raise ValueError(
            f"TreeRecursive: `{name}` must have the shape {form}, ragged over the nodes alone. "
            f"Received: shape {x.shape} with {ragged_rank} ragged axes."
        )
    if name != "features" and not x.dtype.is_integer:
        if not in_symbolic_scope():
            means = "index of each node's parent in its own tree"
            means = means if name == "parents" else "label of the edge above each node"
            raise ValueError(
                f"TreeRecursive: `{name}` must be int32 or int64, the {means}. "
                f"Received: dtype {x.dtype.name}."
            )
        # A saved subclassed model finds its shapes on floats, whatever its inputs are.
        x = tf.cast(x, tf.int64)
    if name == "features" and not x.dtype.is_floating:
        raise ValueError(
            f"TreeRecursive: `features` must be vectors of floats. Received: dtype {x.dtype.name}. "
            f"Look ids up before (keras_blocks.Embedding), or cast the features."
        )
    if isinstance(x, tf.RaggedTensor):
        return x.with_row_splits_dtype(tf.int64)
    size = tf.shape(x, out_type=tf.int64)
    rows = tf.range(size[0] + 1) * size[1]
    return ragged.from_row_splits(tf.reshape(x, tf.concat([[-1], size[2:]], axis=0)), rows)
