"""The order in which a file goes through the nodes of a batch of trees."""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.mechanisms.tree_levels import Span
from keras_blocks.mechanisms.tree_schedule import Schedule, inverse


class Seats:
    """Every node has a seat: the deepest level comes first, on each level inner nodes, then leaves.

    So the children of a level sit side by side, as do its own inner nodes, and its leaves.

    Args:
        plan: the order of the nodes, with leaves by level.

    Attributes:
        order: (nodes,) the node on each seat.
        rank: (nodes,) its place in the order of the plan.
        of_rank: (nodes,) the seat of each node, in the order of the plan.
        within: (nodes,) likewise, its seat on its own level.
        parent: (nodes,) likewise, its parent among all inner nodes, in the order of their seats;
            roots have one behind all.
        deepest: (1,) where the deepest level ends.
        ends: (levels above it, 3) where on each the inner nodes end, counted without leaves and
            as a seat, and where the level ends.
    """

    def __init__(self, plan: Schedule):
        level = tf.gather(plan.level, plan.order)
        rank = tf.range(tf.size(level, tf.int64))
        is_leaf = tf.cast(rank >= plan.inner, tf.int64)
        leaves = tf.tensor_scatter_nd_add(tf.zeros_like(level), tf.expand_dims(level, 1), is_leaf)
        number = tf.expand_dims(plan.levels, 0) + 1
        used = Span(tf.zeros_like(number), number)
        # For each level, and in it for inner nodes and leaves: how many there are, how many the
        # plan has before them, and how many of the kind stand deeper.
        counts = tf.stack([used.of(plan.counts), used.of(leaves)], axis=1)
        inner, _ = tf.unstack(counts, axis=1)
        before = tf.cumsum(counts, exclusive=True) + tf.concat([[0], plan.inner], axis=0)
        deeper = tf.cumsum(counts, exclusive=True, reverse=True)
        begin, first = tf.reduce_sum(deeper, axis=1), deeper[:, 0]
        shift = before - tf.stack([tf.zeros_like(inner), inner], axis=1)
        # What turns the parent's place as the plan has it into its place here, for the level above.
        lead = tf.stack([first, first - before[:, 0]], axis=1)
        lead = tf.pad(lead, [[1, 0], [0, 0]])

        kind = 2 * level + is_leaf
        self.within = rank - tf.gather(tf.reshape(shift, [-1]), kind)
        self.of_rank = tf.gather(begin, level) + self.within
        self.parent = plan.place[:, 0] + tf.gather(tf.reshape(lead, [-1]), kind)
        self.rank = inverse(self.of_rank)
        self.order = tf.gather(plan.order, self.rank)
        self.deepest = tf.reduce_sum(Span(number - 1, number).of(leaves), keepdims=True)
        ends = [first + inner, begin + inner, begin + tf.reduce_sum(counts, axis=1)]
        self.ends = tf.stack(ends, axis=1)
