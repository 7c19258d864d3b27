"""The messages of children with places of their own, where a node has many places."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.levels import RowRange
from keras_blocks.mechanisms.trees.messages import ChildReduction


class LazySlotTable:
    """A table of which a level is filled when it is taken, for rows too wide to be kept for all.

    Args:
        kind: `SlicedLevels` or `PoppedLevels`, to keep the messages.
        combination: how they are put into tables.
        message: (leaves, width), one part of their messages.
    """

    def __init__(self, kind: Any, reduction: ChildReduction, message: tf.Tensor):
        plan = reduction.plan
        self.reduction = reduction
        places = plan.leaves.of(plan.place)
        owner = places[:, 0]
        order = active_kernels().order(owner)
        self.places = tf.gather(places, order)
        # What leaves that are roots send goes behind the last row, and is never taken.
        number = tf.tensor_scatter_nd_add(
            tf.zeros(plan.inner + 1, tf.int64), tf.expand_dims(owner, 1), tf.ones_like(owner)
        )
        self.begins = tf.concat([[0], tf.cumsum(number)], axis=0)
        starts = tf.squeeze(plan.starts, 1)
        ends = tf.gather(self.begins, starts + plan.counts)
        counts = (ends - tf.gather(self.begins, starts))[: plan.levels]
        self.messages = kind(tf.gather(message, order), counts)
        self.start, self.shape = self.messages.start, self.messages.shape

    def take(self, rows: RowRange, kept: Any) -> tuple[tf.Tensor, Any]:
        """The table of the deepest level that was not taken yet, whose rows these are."""
        mine = RowRange(tf.gather(self.begins, rows.begin), tf.gather(self.begins, rows.end))
        messages, kept = self.messages.take(mine, kept)
        places = mine.of(self.places) - tf.concat([rows.begin, [0]], axis=0)
        table = self.reduction.empty(rows.end - rows.begin, messages)
        return self.reduction.put([table], places, messages)[0], kept
