"""A schedule as a ragged tensor beside the nodes, so that a `tf.data` pipeline can compute it."""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.mechanisms.trees import checks as tree_checks
from keras_blocks.mechanisms.trees.schedule import (
    Schedule,
    inverse,
    levels_of,
    place_of,
    schedule,
    slots_of,
)

COLUMNS = 6
"""For each node: its parent, level and number of children, its place in the order, and the place
and the slot that it has below its parent."""


def packed(parents: tf.RaggedTensor, forests: bool) -> tf.RaggedTensor:
    """Ragged int32 (batch, None, COLUMNS): the schedule of these trees, checked."""
    # Slots for any arity: the layer checks that there are no more children than it has slots.
    plan = schedule(parents, arity=tf.int64.max, forests=forests)
    places = tf.gather(plan.place, plan.rank)
    columns = [parents.values, plan.level, plan.number, plan.rank, *tf.unstack(places, axis=1)]
    return parents.with_values(tf.cast(tf.stack(columns, axis=1), tf.int32))


def unpacked(
    parents: tf.RaggedTensor, arity: int | None, slots: tf.Tensor | None, forests: bool
) -> Schedule:
    """The schedule that was packed; the arguments are those of `schedule`."""
    where = tree_checks.places(parents)
    local, level, number, rank, owner, slot = tf.unstack(parents.values, axis=1)
    with tf.control_dependencies(tree_checks.schedule_of_this_batch(rank, number == 0, where)):
        local = tf.identity(local)
    # The schedule may have been made for forests.
    with tf.control_dependencies(tree_checks.parents_in_their_tree(local, where, forests)):
        rank = tf.identity(rank)
    nodes = tf.shape(rank, tf.int64)
    order = inverse(rank)
    parent = tf.where(local < 0, nodes, local + where.start)
    is_root, given = local < 0, None
    if arity is None:
        slot = None
    elif slots is not None:
        given = slot = slots_of(slots, arity, parent, where)
    levels = levels_of(level, number)
    place = tf.gather(place_of(owner, slot, arity, number, where), order)
    return Schedule(
        nodes, order, rank, level, *levels, place, number, where.row, is_root, parent, given
    )
