"""Refuses malformed trees, naming tree and node.

Run eagerly, it raises TreeError; in a graph tf.errors.InvalidArgumentError with the same text. A
sound batch pays a few comparisons: the messages are made in the branch that fails. Nothing of this
is left in an exported ONNX graph.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_blocks.contract import tree_rules as tree_validity
from keras_blocks.errors import TreeError
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.windows.short_inputs import is_for_a_file

Problem = tuple[tf.Tensor, str, Callable[[tf.Tensor], list[tf.Tensor]]]
"""Which ones are wrong, the message, and what fills its blanks for the first wrong one."""


class Places(NamedTuple):
    """Where the nodes of a batch stand: for each, its tree and that tree's first node and size."""

    row: tf.Tensor
    start: tf.Tensor
    size: tf.Tensor
    row_splits: tf.Tensor

    @property
    def index(self) -> tf.Tensor:
        """Each node's index within its tree."""
        return tf.range(tf.size(self.row, out_type=tf.int64)) - self.start


def places(parents: tf.RaggedTensor) -> Places:
    """The places of the nodes of these trees."""
    splits = parents.row_splits
    # A step of one where a row ends: the rows of a ragged tensor, in operations that convert well.
    nodes = tf.shape(parents.values, out_type=tf.int64)[:1]
    ends = splits[1:]
    steps = tf.tensor_scatter_nd_add(
        tf.zeros(nodes + 1, tf.int64), tf.expand_dims(ends, 1), tf.ones_like(ends)
    )
    row = tf.cumsum(steps)[:-1]
    start = active_kernels().at(splits, row)
    return Places(row, start, tf.gather(ends, row) - start, splits)


def same_rows(others: dict[str, tf.RaggedTensor], parents: tf.RaggedTensor) -> list[tf.Operation]:
    """Each tree has as many rows of all others, which have names, as it has parents."""
    done: list[tf.Operation] = []
    for name, other in others.items():
        if other.row_splits is not parents.row_splits:
            lengths = parents.row_lengths()
            done += _same_lengths(other.row_lengths(), lengths, tree_validity.UNEQUAL_ROWS, name)
    return done


def a_row_for_each_leaf(
    features: tf.RaggedTensor, row: tf.Tensor, children: tf.Tensor, trees: tf.Tensor
) -> list[tf.Operation]:
    """Each tree has as many rows of features as leaves.

    Args:
        features: ragged (batch, None, size).
        row: (nodes,) the tree of each node.
        children: (nodes,) how many each node has; leaves have none.
        trees: () how many trees there are.
    """
    is_leaf = tf.cast(children == 0, tf.int64)
    leaves = tf.math.unsorted_segment_sum(is_leaf, row, trees)
    return _same_lengths(features.row_lengths(), leaves, tree_validity.UNEQUAL_LEAVES, "features")


def _same_lengths(have: tf.Tensor, want: tf.Tensor, text: str, name: str) -> list[tf.Operation]:
    batches = tf.stack([tf.size(have, out_type=tf.int64), tf.size(want, out_type=tf.int64)])
    other_batch = batches[:1] != batches[1:]
    unequal = tree_validity.UNEQUAL_BATCHES.replace("features", name)
    done = _refuse([(other_batch, unequal, lambda i: tf.unstack(batches))])
    with tf.control_dependencies(done):
        wrong = tf.identity(have) != want
    blanks = lambda i: [i, tf.gather(have, i), tf.gather(want, i)]  # noqa: E731
    return _refuse([(wrong, text.replace("features", name), blanks)])


def parents_in_their_tree(parents: tf.Tensor, where: Places, forests: bool) -> list[tf.Operation]:
    """Every parent is -1 or another node of the tree, and every tree with nodes has one root.

    With `forests` it may have more.
    """
    index, row = where.index, where.row
    is_root = parents == -1
    roots = tf.where(is_root)[:, 0]
    root_rows = tf.gather(row, roots)
    second = tf.concat([[False], root_rows[1:] == root_rows[:-1]], axis=0)[: tf.size(roots)]
    rooted = tf.tensor_scatter_nd_update(
        where.row_splits[1:] == where.row_splits[:-1],
        root_rows[:, None],
        tf.ones_like(root_rows, tf.bool),
    )
    sizes = where.row_splits[1:] - where.row_splits[:-1]

    def node(i: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(index, i), tf.gather(row, i)]

    def two_roots(i: tf.Tensor) -> list[tf.Tensor]:
        some = tf.concat([[0], roots, [0]], axis=0)  # readable where there are no roots
        return [*node(tf.gather(some, i + 1)), tf.gather(index, tf.gather(some, i))]

    problems: list[Problem] = [
        (
            (parents < -1) | (parents >= where.size),
            tree_validity.OUT_OF_RANGE,
            lambda i: [*node(i), tf.gather(parents, i), tf.gather(where.size, i)],
        ),
        (parents == index, tree_validity.OWN_PARENT, node),
        (second, tree_validity.SECOND_ROOT, two_roots),
        (~rooted, tree_validity.NO_ROOT, lambda i: [i, tf.gather(sizes, i)]),
    ]
    return _refuse([p for p in problems if not (forests and p[1] == tree_validity.SECOND_ROOT)])


def every_node_below_a_root(lost: tf.Tensor, where: Places) -> list[tf.Operation]:
    """No node is `lost`: going from parent to parent always ends at the root."""

    def node(i: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(where.index, i), tf.gather(where.row, i)]

    return _refuse([(lost, tree_validity.CYCLE, node)])


def children_at_most(arity: int, children: tf.Tensor, where: Places) -> list[tf.Operation]:
    """No node has more `children` than there are slots for."""

    def blanks(i: tf.Tensor) -> list[tf.Tensor]:
        node = [tf.gather(where.index, i), tf.gather(where.row, i)]
        return [*node, tf.gather(children, i), tf.constant(arity)]

    return _refuse([(children > arity, tree_validity.CROWDED, blanks)])


def slots_apart(
    slots: tf.Tensor, arity: int, parent: tf.Tensor, where: Places
) -> list[tf.Operation]:
    """Every slot is one of the arity's, and no two children of a `parent` have the same."""

    def node(i: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(where.index, i), tf.gather(where.row, i), tf.gather(slots, i)]

    # Children of one parent and one slot stand side by side where both are sorted.
    order = tf.argsort(slots, stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(parent, order), stable=True))
    key = tf.gather(tf.stack([parent, slots], axis=1), order)
    same = tf.reduce_all(key[1:] == key[:-1], axis=1) & (key[1:, 0] < tf.size(parent, tf.int64))

    def twins(i: tf.Tensor) -> list[tf.Tensor]:
        some = tf.concat([order, [0, 0]], axis=0)  # readable where there are no nodes
        return [*node(tf.gather(some, i + 1)), tf.gather(where.index, tf.gather(some, i))]

    return _refuse(
        [
            (
                (slots < 0) | (slots >= arity),
                tree_validity.BAD_SLOT,
                lambda i: [*node(i), tf.constant(arity)],
            ),
            (same, tree_validity.SAME_SLOT, twins),
        ]
    )


def known_labels(labels: tf.Tensor, known: int, parents: tf.RaggedTensor) -> list[tf.Operation]:
    """Every label of an edge is one that the cell knows."""

    def blanks(i: tf.Tensor) -> list[tf.Tensor]:
        where = places(parents)
        node = [tf.gather(where.index, i), tf.gather(where.row, i)]
        return [*node, tf.gather(labels, i), tf.constant(known)]

    return _refuse([((labels < 0) | (labels >= known), tree_validity.UNKNOWN_LABEL, blanks)])


def schedule_of_this_batch(
    rank: tf.Tensor, is_leaf: tf.Tensor, where: Places
) -> list[tf.Operation]:
    """The places are all those of as many nodes, each once, and leaves stand as they are given."""
    nodes = tf.size(rank, out_type=tf.int64)

    def blanks(i: tf.Tensor) -> list[tf.Tensor]:
        node = [tf.gather(where.index, i), tf.gather(where.row, i)]
        return [*node, tf.gather(rank, i), nodes]

    leaves = tf.cumsum(tf.cast(is_leaf, tf.int64))
    moved = is_leaf & (rank != nodes - leaves[-1:] + leaves - 1)
    outside = (rank < 0) | (rank >= nodes)
    done = _refuse([(outside | moved, tree_validity.OTHER_BATCH, blanks)])
    with tf.control_dependencies(done):
        taken = tf.tensor_scatter_nd_add(
            tf.zeros_like(rank), tf.expand_dims(rank, 1), tf.ones_like(rank)
        )
    twice = tf.gather(taken, rank) > 1
    return _refuse([(twice, tree_validity.OTHER_BATCH, blanks)])


def _refuse(problems: list[Problem]) -> list[tf.Operation]:
    """Raises for the first of the problems that is there; gives what must run before going on.

    The blanks of every problem must be readable, even if they say nothing, when another is there.
    """
    problems = [(wrong, f"TreeRecursive: {text}", blanks) for wrong, text, blanks in problems]
    fine = ~tf.reduce_any(tf.stack([tf.reduce_any(wrong) for wrong, _, _ in problems]))
    if tf.executing_eagerly():
        if not fine:
            wrong, text, blanks = next(p for p in problems if tf.reduce_any(p[0]))
            first = tf.argmax(tf.cast(wrong, tf.int32))
            raise TreeError(text.format(*(int(blank) for blank in blanks(first))))
        return []

    def complain() -> tf.Tensor:
        for wrong, text, blanks in problems:
            # One more, as the first of nothing is an error, and this one may be fine.
            first = tf.argmax(tf.pad(tf.cast(wrong, tf.int32), [[0, 1]]))
            line = tf.strings.format(text, blanks(first))
            # TensorFlow puts what an assertion says behind the whole traceback of the graph; so the
            # line is said first by itself. Both run in their order.
            if not is_for_a_file():
                tf.cond(tf.reduce_any(wrong), functools.partial(_say, line), lambda: False)
            tf.debugging.Assert(~tf.reduce_any(wrong), [line])
        return tf.constant(False)

    return [tf.cond(fine, lambda: tf.constant(True), complain)]


def _say(line: tf.Tensor) -> bool:
    tf.print(line, output_stream=sys.stderr)
    return True
