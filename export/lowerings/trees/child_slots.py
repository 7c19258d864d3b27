"""How children's messages are combined in a file: taken side by side to their node, then reduced.

A sum in one place for all of them goes value by value, so as not to race (`lowerings.scatter`).
Here whole messages are copied, each once, from the list of what a level's children send.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.trees.level_order import LevelOrder, chosen, count
from keras_blocks.mechanisms.trees.cells.base import FEW_SLOTS
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.levels import RowRange
from keras_blocks.mechanisms.trees.messages import ChildReduction
from keras_blocks.mechanisms.trees.schedule import Schedule
from keras_blocks.size_sums import sum_of_sizes

_PAIR = 2
"""So many are added as they are: a reduction takes four times as long."""
_NOTHING = -1
"""The last place in a list, as ONNX counts, where the row stands that an empty slot gets."""


class ChildSlots:
    """The slots of inner nodes: as many as the arity, or as nodes have children on average.

    A node with more children has more rows of slots, which are reduced and added to its own.

    Args:
        combination: how messages are combined.
        plan: the order of the nodes, with slots where they are given.
        seats: where they sit.
    """

    def __init__(self, reduction: ChildReduction, plan: Schedule, level_order: LevelOrder):
        self.reduction, self.arity = reduction, reduction.arity
        at, begins = active_kernels().at, level_order.first
        self.number = begins[1:] - begins[:-1]
        inner = rows = tf.shape(self.number, tf.int64)
        # Roots stand behind all who have a parent.
        children = RowRange(tf.zeros_like(inner), sum_of_sizes(begins[-1:], keepdims=True))
        row = children.of(level_order.owner)
        if plan.slots is None:
            slot = count(row) - at(begins, row)
        else:
            slot = at(plan.slots, children.of(level_order.children))
        if self.arity is None:
            row, slot, rows = self._in_rows(plan, row, slot, inner)
        else:
            self.few = tf.constant([self.arity], tf.int64)
        self.sources = tf.tensor_scatter_nd_update(
            tf.fill(tf.concat([rows, self.few], axis=0), tf.constant(_NOTHING, tf.int64)),
            tf.stack([row, slot], axis=1),
            children.of(level_order.within),
        )
        if self.arity is None:
            self.behind = RowRange(inner, rows).of(self.sources)
            self.pair = tf.squeeze(self.sources[:, :1], 1), tf.squeeze(self.sources[:, 1:2], 1)

    def _in_rows(
        self, plan: Schedule, row: tf.Tensor, slot: tf.Tensor, inner: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The row of each child, its slot there, and how many rows there are.

        more: (inner nodes + 1,) how many rows the nodes before have more, where any has.
        owners: (rows behind, 1) the inner node that each belongs to.
        """
        most = tf.reduce_max(tf.concat([[1], self.number], axis=0), keepdims=True)
        # All slots together are not many more than the nodes.
        mean = tf.truncatediv(plan.nodes, tf.maximum(inner, 1)) + 1
        self.few = tf.minimum(tf.maximum(most, _PAIR), tf.maximum(mean, FEW_SLOTS))
        alike = tf.equal(most * inner, tf.shape(row, tf.int64))
        self.are_alone = tf.squeeze(alike & (most < _PAIR), 0)
        self.are_paired = tf.squeeze(alike & tf.equal(most, _PAIR), 0)
        self.are_crowded = tf.squeeze(most > self.few, 0)

        def crowded() -> list[tf.Tensor]:
            more = tf.cumsum(tf.concat([[0], tf.truncatediv(self.number - 1, self.few)], axis=0))
            turn = tf.truncatediv(slot, self.few)
            behind = inner + active_kernels().at(more, row) + turn - 1
            own = slot - turn * self.few
            owners = chosen(row, (turn > 0) & (own == 0))
            return [tf.where(turn > 0, behind, row), own, more, owners]

        def own() -> list[tf.Tensor]:
            return [row, slot, self.number, row[:0]]  # nobody asks for `more`

        row, slot, self.more, owners = tf.cond(self.are_crowded, crowded, own)
        self.owners = tf.expand_dims(tf.ensure_shape(owners, [None]), 1)
        rows = inner + tf.shape(self.owners, tf.int64)[:1]
        return tf.ensure_shape(row, [None]), tf.ensure_shape(slot, [None]), rows

    def combined(self, messages: Any, inner: RowRange) -> Any:
        """What the cell gets.

        Args:
            messages: those of a level's children.
            inner: the nodes that get them, among all inner nodes.
        """
        parts = keras.tree.flatten(messages)
        slots = [None] if self.arity is None else [None, self.arity]
        taken = self._side_by_side(parts, inner) if self.arity else self._combined(parts, inner)
        shapes = [[*slots, part.shape[-1]] for part in parts]
        taken = [tf.ensure_shape(x, shape) for x, shape in zip(taken, shapes, strict=True)]
        return keras.tree.pack_sequence_as(messages, taken)

    def _lists(self, parts: list[tf.Tensor]) -> list[tf.Tensor]:
        """The messages, and behind them the one that counts as nothing."""
        least = 0 if self.reduction.adds() else -math.inf
        lists = []
        for part in parts:
            nothing = tf.fill([1, part.shape[-1]], tf.constant(least, part.dtype))
            lists.append(tf.concat([part, nothing], axis=0))
        return lists

    def _side_by_side(self, parts: list[tf.Tensor], inner: RowRange) -> list[tf.Tensor]:
        """(inner nodes, arity, width), the messages to each node."""
        sources = inner.of(self.sources)
        return [tf.gather(part, sources) for part in self._lists(parts)]

    def _combined(self, parts: list[tf.Tensor], inner: RowRange) -> list[tf.Tensor]:
        """(inner nodes, width), the messages to each node as one."""
        # A branch takes 1% of the time, and 4% where levels are small: the usual come first.
        rows = tf.cond(
            self.are_paired,
            lambda: self._added(parts, inner),
            lambda: tf.cond(
                self.are_alone,
                lambda: self._alone(parts, inner),
                lambda: tf.cond(
                    self.are_crowded,
                    lambda: self._crowded(self._lists(parts), inner),
                    lambda: self._reduced(self._lists(parts), inner.of(self.sources)),
                ),
            ),
        )
        if self.reduction.kind != "mean":
            return rows
        number = tf.expand_dims(inner.of(self.number), 1)
        return [row / tf.cast(number, row.dtype) for row in rows]

    def _alone(self, parts: list[tf.Tensor], inner: RowRange) -> list[tf.Tensor]:
        """The messages to nodes with one child each."""
        only, _ = self.pair
        return [tf.gather(part, inner.of(only)) for part in parts]

    def _added(self, parts: list[tf.Tensor], inner: RowRange) -> list[tf.Tensor]:
        """The messages to nodes with two children each, one to the other."""
        add = tf.add if self.reduction.adds() else tf.maximum
        one, other = (inner.of(places) for places in self.pair)
        rows = [add(tf.gather(part, one), tf.gather(part, other)) for part in parts]
        return [tf.ensure_shape(x, [None, y.shape[-1]]) for x, y in zip(rows, parts, strict=True)]

    def _reduced(self, lists: list[tf.Tensor], sources: tf.Tensor) -> list[tf.Tensor]:
        """Rows of slots, each reduced to one row."""
        reduce = tf.reduce_sum if self.reduction.adds() else tf.reduce_max
        rows = [reduce(tf.gather(part, sources), axis=1) for part in lists]
        # What is known of shapes is lost in loops and branches, but not what is ensured.
        return [tf.ensure_shape(x, [None, y.shape[-1]]) for x, y in zip(rows, lists, strict=True)]

    def _crowded(self, lists: list[tf.Tensor], inner: RowRange) -> list[tf.Tensor]:
        """The same, with the rows behind brought to their owners."""
        adds = self.reduction.adds()
        bring = tf.tensor_scatter_nd_add if adds else tf.tensor_scatter_nd_max
        behind = RowRange(*(tf.ensure_shape(tf.gather(self.more, x), [1]) for x in inner))
        owner = tf.ensure_shape(behind.of(self.owners) - inner.begin, [None, 1])
        own = self._reduced(lists, inner.of(self.sources))
        more = self._reduced(lists, behind.of(self.behind))
        return [bring(x, owner, y) for x, y in zip(own, more, strict=True)]
