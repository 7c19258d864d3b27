"""The order in which the nodes of a batch of trees are computed, found inside the graph.

A node's level is its depth: level 0 holds the roots. The children of a level's nodes are exactly
the nodes of the next level, so going up from the deepest level, one level of the whole batch is one
call of the cell, and nothing but the states of one level is carried on. Leaves need no children:
they are done once, before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import tensorflow as tf

from keras_blocks.mechanisms import tree_checks

_OPSET: ContextVar[int | None] = ContextVar("opset", default=None)
# ONNX adds into repeated places (ScatterND, reduction="add") from this version on.
_OPSET_OF_SCATTER_ADD = 16


@contextmanager
def exporting(opset_version: int) -> Iterator[None]:
    """Traces trees in operations that this ONNX opset has; needed below opset 16 only."""
    token = _OPSET.set(opset_version)
    try:
        yield
    finally:
        _OPSET.reset(token)


def sum_by(values: tf.Tensor, places: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """y[p] = sum of values[i] with places[i] = p, for p below count; 0 where there is none."""
    shape = tf.concat([[count], tf.shape(values, out_type=tf.int64)[1:]], axis=0)
    if (_OPSET.get() or _OPSET_OF_SCATTER_ADD) >= _OPSET_OF_SCATTER_ADD:
        return tf.tensor_scatter_nd_add(tf.zeros(shape, values.dtype), places[:, None], values)
    # The added zero keeps tf2onnx's form of this operation defined where there are no values.
    zero = tf.zeros(tf.concat([[1], shape[1:]], axis=0), values.dtype)
    places = tf.concat([places, tf.zeros([1], places.dtype)], axis=0)
    return tf.math.unsorted_segment_sum(tf.concat([values, zero], axis=0), places, count + 1)[:-1]


class Schedule(NamedTuple):
    """What the loop over levels needs; "in level order" means roots first.

    Args:
        order: (nodes,) the inner nodes in level order, then the leaves in level order.
        rank: (nodes,) the place of each node in `order`.
        inner: () how many nodes have children.
        outer: () how many have none.
        levels: () how many levels there are.
        inner_counts: (levels,) how many nodes with children each level has.
        leaf_counts: (levels,) how many leaves each level has.
        owner: (nodes,) for all nodes in level order, inner nodes first in each level: the place of
            the node's parent among the inner nodes of its level; 0 for roots.
        slot: (nodes,) in the same order, how many siblings of the node have a lower index.
        row: (nodes,) in the same order, the tree of the node.
    """

    order: tf.Tensor
    rank: tf.Tensor
    inner: tf.Tensor
    outer: tf.Tensor
    levels: tf.Tensor
    inner_counts: tf.Tensor
    leaf_counts: tf.Tensor
    owner: tf.Tensor
    slot: tf.Tensor | None
    row: tf.Tensor


def schedule(parents: tf.RaggedTensor, arity: int | None) -> Schedule:
    """Checks the trees and finds the order of their nodes.

    Args:
        parents: ragged int64 (batch, None).
        arity: the most children that a node may have, or None for any number; slots are found
            where there is an arity.
    """
    where = tree_checks.places(parents)
    with tf.control_dependencies(tree_checks.parents_in_their_tree(parents.values, where)):
        local = tf.identity(parents.values)
    nodes = tf.size(local, out_type=tf.int64)
    # The root's parent is a node behind the last, which is its own parent.
    parent = tf.where(local < 0, nodes, local + where.start)
    level = _depth(parent, nodes, where)

    children = sum_by(tf.ones_like(parent), parent, nodes + 1)[:-1]
    is_inner = children > 0
    inner = tf.reduce_sum(tf.cast(is_inner, tf.int64))
    # A batch without nodes has one level, too, so that every level can be read.
    levels = tf.reduce_max(tf.concat([level, [0]], axis=0)) + 1
    order = _stable_order(tf.where(is_inner, level, level + levels))
    rank = _inverse(order, nodes)

    inner_counts = sum_by(tf.cast(is_inner, tf.int64), level, levels)
    leaf_counts = sum_by(tf.cast(~is_inner, tf.int64), level, levels)
    inner_starts = tf.cumsum(inner_counts, exclusive=True)
    leaf_starts = tf.cumsum(leaf_counts, exclusive=True)
    in_level = tf.where(
        is_inner,
        rank - tf.gather(inner_starts, level),
        rank - inner - tf.gather(leaf_starts - inner_counts, level),
    )
    by_level = _inverse(in_level + tf.gather(inner_starts + leaf_starts, level), nodes)
    # Roots read the 0 that stands behind the last node.
    owner = tf.gather(tf.concat([in_level, [0]], axis=0), tf.gather(parent, by_level))
    slot = None
    if arity is not None:
        with tf.control_dependencies(tree_checks.children_at_most(arity, children, where)):
            slot = tf.gather(_slots(parent, children), by_level)
    row = tf.gather(where.row, by_level)
    return Schedule(
        order, rank, inner, nodes - inner, levels, inner_counts, leaf_counts, owner, slot, row
    )


def _depth(parent: tf.Tensor, nodes: tf.Tensor, where: tree_checks.Places) -> tf.Tensor:
    """The distance of each node from its root, by pointer doubling."""
    ancestor = tf.concat([parent, nodes[None]], axis=0)
    # Steps from the node to its `ancestor`; the node behind the last is 0 steps from itself.
    steps = tf.concat([tf.ones_like(parent), [0]], axis=0)

    def going_on(reach: tf.Tensor, ancestor: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return tf.logical_and(reach < nodes, tf.reduce_any(ancestor < nodes))

    def double(reach: tf.Tensor, ancestor: tf.Tensor, steps: tf.Tensor) -> Any:
        steps = steps + tf.gather(steps, ancestor)
        return reach * 2, tf.gather(ancestor, ancestor), steps

    one = tf.constant(1, tf.int64)
    _, ancestor, steps = tf.while_loop(going_on, double, (one, ancestor, steps))
    with tf.control_dependencies(tree_checks.every_node_below_a_root(ancestor[:-1] < nodes, where)):
        return tf.identity(steps[:-1]) - 1


def _stable_order(key: tf.Tensor) -> tf.Tensor:
    """The order that sorts small integers; equal ones keep theirs."""
    # TopK, because it converts to ONNX; float32, because tf2onnx makes it that anyway.
    count = tf.size(key)
    _, order = tf.math.top_k(-tf.cast(key, tf.float32), k=count, index_type=tf.int64)
    return order


def _inverse(order: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    places = tf.range(count)
    return tf.tensor_scatter_nd_update(tf.zeros_like(places), order[:, None], places)


def _slots(parent: tf.Tensor, children: tf.Tensor) -> tf.Tensor:
    """How many siblings with a lower index each node has."""
    nodes = tf.size(parent, out_type=tf.int64)
    by_parent = _stable_order(parent)
    first = tf.concat([tf.cumsum(children, exclusive=True), [nodes]], axis=0)
    rank = _inverse(by_parent, nodes)
    # The roots stand last, in a row of their own; they have no siblings.
    return tf.where(parent < nodes, rank - tf.gather(first, parent), 0)
