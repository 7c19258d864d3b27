"""The order in which the nodes of a batch of trees are computed, found inside the graph.

A node's level is its depth: level 0 holds the roots. The children of a level's inner nodes are all
on the next level, so going up from the deepest level, one level of the whole batch is one call of
the cell, and nothing but the states of one level is carried on. Leaves need no children: they are
done once, before, and so is all that they send to their parents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from keras_blocks.mechanisms.trees import checks as tree_checks
from keras_blocks.mechanisms.trees.checks import Places
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.levels import RowRange
from keras_blocks.size_sums import sum_of_sizes

# So many doublings reach depth 15 without a loop, whose every round costs more than they do.
_DOUBLINGS_AT_ONCE = 4


class Schedule(NamedTuple):
    """What a pass over the levels needs. The order is: inner nodes by level, then the leaves.

    Args:
        nodes: (1,) how many nodes there are.
        order: (nodes,) the nodes in this order, leaves as they are given.
        rank: (nodes,) the place of each node in `order`.
        level: (nodes,) the depth of each node, as given.
        inner: (1,) how many nodes have children.
        levels: () how many levels have inner nodes.
        counts: (nodes,) how many inner nodes each level has; 0 from `levels` on.
        starts: (nodes, 1) how many inner nodes the levels above have.
        place: (nodes, 1), or (nodes, 2) with slots, in this order: the node's parent among the
            inner nodes of its level, for leaves among all inner nodes, and the node's slot there.
            Leaves that are roots point behind all inner nodes.
        number: (nodes,) how many children each node has, as given.
        row: (nodes,) the tree of each node, as given.
        is_root: (nodes,) as given.
        parent: (nodes,) the parent of each node among all, as given; roots have one behind all.
        slots: (nodes,) the slot of each node, as given, or None where they were not given.
    """

    nodes: tf.Tensor
    order: tf.Tensor
    rank: tf.Tensor
    level: tf.Tensor
    inner: tf.Tensor
    levels: tf.Tensor
    counts: tf.Tensor
    starts: tf.Tensor
    place: tf.Tensor
    number: tf.Tensor
    row: tf.Tensor
    is_root: tf.Tensor
    parent: tf.Tensor
    slots: tf.Tensor | None

    @property
    def leaves(self) -> RowRange:
        """Where the leaves stand."""
        return RowRange(self.inner, self.nodes)

    def upward(self) -> tf.Tensor:
        """(nodes,) the place of each node where the deepest level stands first, leaves behind."""
        starts = tf.squeeze(self.starts, 1)
        shifts = tf.gather(self.inner - starts - starts - self.counts, self.level)
        return tf.where(self.number > 0, self.rank + shifts, self.rank)


def schedule(
    parents: tf.RaggedTensor,
    arity: int | None = None,
    slots: tf.Tensor | None = None,
    forests: bool = False,
) -> Schedule:
    """Checks the trees and finds the order of their nodes.

    Args:
        parents: ragged int64 (batch, None).
        arity: the most children that a node may have, or None for any number; slots are found
            where there is an arity.
        slots: (nodes,), the slots where they are given.
        forests: bool, whether a row may have several roots.
    """
    where = tree_checks.places(parents)
    checks = tree_checks.parents_in_their_tree(parents.values, where, forests)
    with tf.control_dependencies(checks):
        local = tf.identity(parents.values)
    nodes = tf.shape(local, tf.int64)
    is_root = local < 0
    # The root's parent is a node behind the last, which is its own parent.
    parent = tf.where(is_root, nodes, local + where.start)
    steps = _steps_to_the_end(parent, nodes, where)
    level = steps - 1

    number = _add_at(tf.zeros(nodes + 1, tf.int64), parent, tf.ones_like(parent))[:-1]
    is_inner = number > 0
    order = active_kernels().order(tf.where(is_inner, level, nodes))
    rank = inverse(order)
    levels = levels_of(level, number)
    owner = tf.gather(tf.concat([rank, levels.inner], axis=0), parent)
    # The parent's level starts there; the whole of the inner nodes starts at 0.
    above = tf.gather(tf.squeeze(levels.starts, 1), tf.maximum(level - 1, 0))
    owner = tf.where(is_inner, owner - above, owner)
    given = None
    if arity is not None and slots is not None:
        given = slots = slots_of(slots, arity, parent, where)
    elif arity is not None:
        slots = _slots(parent, number)
    place = tf.gather(place_of(owner, slots, arity, number, where), order)
    return Schedule(
        nodes, order, rank, level, *levels, place, number, where.row, is_root, parent, given
    )


def place_of(
    owner: tf.Tensor, slots: tf.Tensor | None, arity: int | None, number: tf.Tensor, where: Places
) -> tf.Tensor:
    """(nodes, 1), or (nodes, 2) with slots where there are any."""
    if slots is None:
        return tf.expand_dims(owner, 1)
    checks = [] if arity is None else tree_checks.children_at_most(arity, number, where)
    with tf.control_dependencies(checks):
        return tf.stack([owner, slots], axis=1)


def slots_of(given: tf.Tensor, arity: int, parent: tf.Tensor, where: Places) -> tf.Tensor:
    """The slots that were given, checked, and 0 at roots."""
    slots = tf.where(parent < tf.size(parent, tf.int64), tf.cast(given, tf.int64), 0)
    with tf.control_dependencies(tree_checks.slots_apart(slots, arity, parent, where)):
        return tf.identity(slots)


class Levels(NamedTuple):
    """How many inner nodes there are, and where: the fields of `Schedule` of these names."""

    inner: tf.Tensor
    levels: tf.Tensor
    counts: tf.Tensor
    starts: tf.Tensor


def levels_of(level: tf.Tensor, number: tf.Tensor) -> Levels:
    """The levels of nodes of which the depth and the number of children is known."""
    is_inner = tf.cast(number > 0, tf.int64)
    counts = _add_at(tf.zeros_like(level), level, is_inner)
    return Levels(
        inner=sum_of_sizes(is_inner, keepdims=True),
        levels=tf.reduce_sum(tf.cast(counts > 0, tf.int64)),
        counts=counts,
        starts=tf.expand_dims(tf.cumsum(counts, exclusive=True), 1),
    )


def _steps_to_the_end(parent: tf.Tensor, nodes: tf.Tensor, where: Places) -> tf.Tensor:
    """How many steps from parent to parent lead past the root, by pointer doubling."""
    ancestor = tf.concat([parent, nodes], axis=0)
    # Steps from the node to its `ancestor`; the node behind the last is 0 steps from itself.
    steps = tf.concat([tf.ones_like(parent), [0]], axis=0)
    size = tf.squeeze(nodes, 0)

    def double(reach: tf.Tensor, ancestor: tf.Tensor, steps: tf.Tensor) -> Any:
        steps = steps + active_kernels().at(steps, ancestor)
        return reach * 2, active_kernels().at(ancestor, ancestor), steps

    def going_on(reach: tf.Tensor, ancestor: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        # Below a cycle the ancestor never is the last: the reach ends it.
        return tf.logical_and(reach < size, tf.reduce_min(ancestor) < size)

    state = (tf.constant(1, tf.int64), ancestor, steps)
    for _ in range(_DOUBLINGS_AT_ONCE):
        state = double(*state)
    _, ancestor, steps = tf.while_loop(going_on, double, state)
    with tf.control_dependencies(tree_checks.every_node_below_a_root(ancestor[:-1] < nodes, where)):
        return tf.identity(steps[:-1])


def _add_at(values: tf.Tensor, places: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_add(values, tf.expand_dims(places, 1), added)


def inverse(order: tf.Tensor) -> tf.Tensor:
    """The place of each node in this order."""
    places = tf.range(tf.size(order, out_type=tf.int64))
    return tf.tensor_scatter_nd_update(tf.zeros_like(order), tf.expand_dims(order, 1), places)


def _slots(parent: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """How many siblings with a lower index each node has."""
    rank = inverse(active_kernels().order(parent))
    # The roots stand last; they have no siblings.
    first = tf.concat([tf.cumsum(number, exclusive=True), tf.shape(parent, tf.int64)], axis=0)
    return tf.maximum(rank - tf.gather(first, parent), 0)
