"""How children's messages are combined in a file: taken side by side to their node, then reduced.

A sum in one place for all of them goes value by value, so as not to race (`lowerings.scatter`).
Here whole messages are copied, each once, from the list of what a level's children send.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.tree_seats import Seats
from keras_blocks.mechanisms.tree_cell import FEW_SLOTS
from keras_blocks.mechanisms.tree_levels import Span
from keras_blocks.mechanisms.tree_messages import Combination
from keras_blocks.mechanisms.tree_schedule import Schedule


class Slots:
    """The slots of inner nodes: as many as the arity, or as nodes have children on average.

    A node with more children has more rows of slots, which are reduced and added to its own.

    Args:
        combination: how messages are combined.
        plan: the order of the nodes, with slots.
        seats: where they sit.
    """

    def __init__(self, combination: Combination, plan: Schedule, seats: Seats):
        self.combination, self.arity = combination, combination.arity
        row, slot, behind = seats.parent, plan.place[:, 1], tf.zeros_like(plan.inner)
        if self.arity is None:
            row, slot, behind = self._in_rows(plan, seats, slot)
        else:
            self.few = tf.constant([self.arity], tf.int64)
        # 0 is the place of nothing in the list. Behind the rows of the inner nodes stands one that
        # nobody takes, for roots, then the rows that some of them have more.
        sources = tf.tensor_scatter_nd_update(
            tf.zeros(tf.concat([plan.inner + 1 + behind, self.few], axis=0), tf.int64),
            tf.stack([row, slot], axis=1),
            seats.within + 1,
        )
        self.sources = sources
        self.behind = Span(plan.inner + 1, plan.inner + 1 + behind).of(sources)

    def _in_rows(
        self, plan: Schedule, seats: Seats, slot: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The row of each child, its slot there, and how many rows are behind.

        number: (inner nodes,) how many children each has.
        more: (inner nodes + 1,) how many rows the nodes before have more.
        owners: (rows behind, 1) the inner node that each belongs to.
        """
        parent, inner = seats.parent, Span(tf.zeros_like(plan.inner), plan.inner)
        number = tf.tensor_scatter_nd_add(
            tf.zeros(plan.inner + 1, tf.int64), tf.expand_dims(parent, 1), tf.ones_like(parent)
        )
        self.number = inner.of(number)
        most = tf.reduce_max(tf.concat([[1], plan.number], axis=0), keepdims=True)
        # All slots together are not many more than the nodes.
        mean = plan.nodes // tf.maximum(plan.inner, 1) + 1
        self.few = tf.minimum(most, tf.maximum(mean, FEW_SLOTS))
        self.is_crowded = tf.squeeze(most > self.few, 0)
        more = (self.number - 1) // self.few
        self.more = tf.cumsum(tf.concat([[0], more], axis=0))
        behind = tf.gather(self.more, plan.inner)
        turn, slot = slot // self.few, slot % self.few
        place = tf.gather(self.more, parent) + turn - 1
        opens = tf.squeeze(tf.where((turn > 0) & (slot == 0)), 1)
        self.owners = tf.tensor_scatter_nd_update(
            tf.zeros(tf.concat([behind, [1]], axis=0), tf.int64),
            tf.expand_dims(tf.gather(place, opens), 1),
            tf.expand_dims(tf.gather(parent, opens), 1),
        )
        return tf.where(turn > 0, plan.inner + 1 + place, parent), slot, behind

    def combined(self, messages: Any, inner: Span) -> Any:
        """What the cell gets.

        Args:
            messages: those of a level's children.
            inner: the nodes that get them, among all inner nodes.
        """
        least = 0 if self.combination.adds() else -math.inf
        lists = []
        for part in keras.tree.flatten(messages):
            nothing = tf.fill([1, part.shape[-1]], tf.constant(least, part.dtype))
            lists.append(tf.concat([nothing, part], axis=0))
        slots = [None] if self.arity is None else [None, self.arity]
        taken = self._side_by_side(lists, inner) if self.arity else self._combined(lists, inner)
        shapes = [[*slots, part.shape[-1]] for part in lists]
        taken = [tf.ensure_shape(x, shape) for x, shape in zip(taken, shapes, strict=True)]
        return keras.tree.pack_sequence_as(messages, taken)

    def _side_by_side(self, lists: list[tf.Tensor], inner: Span) -> list[tf.Tensor]:
        """(inner nodes, arity, width), the messages to each node."""
        sources = inner.of(self.sources)
        return [tf.gather(part, sources) for part in lists]

    def _combined(self, lists: list[tf.Tensor], inner: Span) -> list[tf.Tensor]:
        """(inner nodes, width), the messages to each node as one."""
        rows = tf.cond(
            self.is_crowded,
            lambda: self._crowded(lists, inner),
            lambda: self._reduced(lists, inner.of(self.sources)),
        )
        if self.combination.kind != "mean":
            return rows
        number = tf.expand_dims(inner.of(self.number), 1)
        return [row / tf.cast(number, row.dtype) for row in rows]

    def _reduced(self, lists: list[tf.Tensor], sources: tf.Tensor) -> list[tf.Tensor]:
        """Rows of slots, each reduced to one row."""
        reduce = tf.reduce_sum if self.combination.adds() else tf.reduce_max
        rows = [reduce(tf.gather(part, sources), axis=1) for part in lists]
        # What is known of shapes is lost in loops and branches, but not what is ensured.
        return [tf.ensure_shape(x, [None, y.shape[-1]]) for x, y in zip(rows, lists, strict=True)]

    def _crowded(self, lists: list[tf.Tensor], inner: Span) -> list[tf.Tensor]:
        """The same, with the rows behind brought to their owners."""
        adds = self.combination.adds()
        bring = tf.tensor_scatter_nd_add if adds else tf.tensor_scatter_nd_max
        behind = Span(*(tf.ensure_shape(tf.gather(self.more, x), [1]) for x in inner))
        owner = tf.ensure_shape(behind.of(self.owners) - inner.begin, [None, 1])
        own = self._reduced(lists, inner.of(self.sources))
        more = self._reduced(lists, behind.of(self.behind))
        return [bring(x, owner, y) for x, y in zip(own, more, strict=True)]
