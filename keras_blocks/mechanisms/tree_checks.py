"""Refuses malformed trees, naming tree and node.

Run eagerly, it raises TreeError; in a graph tf.errors.InvalidArgumentError with the same text. A
sound batch pays a few comparisons: the messages are made in the branch that fails. Nothing of this
is left in an exported ONNX graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_blocks import tree_validity
from keras_blocks.errors import TreeError

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
    row = parents.value_rowids()
    sizes = parents.row_lengths()
    return Places(
        row, tf.gather(parents.row_splits, row), tf.gather(sizes, row), parents.row_splits
    )


def same_rows(features: tf.RaggedTensor, parents: tf.RaggedTensor) -> list[tf.Operation]:
    """Every tree has one parent for each row of features."""
    have, want = features.row_lengths(), parents.row_lengths()
    if features.row_splits is parents.row_splits:
        return []
    batches = tf.stack([tf.size(have, out_type=tf.int64), tf.size(want, out_type=tf.int64)])
    other_batch = batches[:1] != batches[1:]
    done = _refuse([(other_batch, tree_validity.UNEQUAL_BATCHES, lambda i: tf.unstack(batches))])
    with tf.control_dependencies(done):
        wrong = tf.identity(have) != want
    blanks = lambda i: [i, tf.gather(have, i), tf.gather(want, i)]  # noqa: E731
    return _refuse([(wrong, tree_validity.UNEQUAL_ROWS, blanks)])


def parents_in_their_tree(parents: tf.Tensor, where: Places) -> list[tf.Operation]:
    """Every parent is -1 or another node of the tree, and every tree with nodes has one root."""
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

    return _refuse(
        [
            (
                (parents < -1) | (parents >= where.size),
                tree_validity.OUT_OF_RANGE,
                lambda i: [*node(i), tf.gather(parents, i), tf.gather(where.size, i)],
            ),
            (parents == index, tree_validity.OWN_PARENT, node),
            (second, tree_validity.SECOND_ROOT, two_roots),
            (~rooted, tree_validity.NO_ROOT, lambda i: [i, tf.gather(sizes, i)]),
        ]
    )


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
            first = tf.argmax(tf.cast(wrong, tf.int32))
            # Assertions of a branch run in their order.
            tf.debugging.Assert(~tf.reduce_any(wrong), [tf.strings.format(text, blanks(first))])
        return tf.constant(False)

    return [tf.cond(fine, lambda: tf.constant(True), complain)]
