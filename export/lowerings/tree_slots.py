"""How children's messages are summed in a file: put side by side at their node, then reduced.

A sum in one place for all of them goes value by value, so as not to race (`lowerings.scatter`). In
places of their own whole messages are put at once.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.tree_cell import FEW_SLOTS
from keras_blocks.mechanisms.tree_levels import Span
from keras_blocks.mechanisms.tree_messages import Combination
from keras_blocks.mechanisms.tree_schedule import Schedule


class InFewSlots(Combination):
    """Messages in the slots of their node, of which it has a few.

    A node with more children has more rows of slots, which stand behind the rows of its level, and
    are added to its own when it is computed.

    Args:
        kind: "sum", "mean" or "max".
        arity: int, or None; with it nothing is combined, and there are as many slots.
        plan: the order of the nodes, with slots.
    """

    in_slots = True

    def __init__(self, kind: str, arity: int | None, plan: Schedule):
        super().__init__(kind, arity, plan)
        if arity is not None:
            return
        most = tf.reduce_max(tf.concat([[1], plan.number], axis=0), keepdims=True)
        self.few = tf.minimum(most, FEW_SLOTS)
        self.is_crowded = tf.squeeze(most > FEW_SLOTS, 0)
        none = tf.zeros([1], tf.int64)
        places, more, owners = tf.cond(
            self.is_crowded,
            self._crowded,
            lambda: (plan.place, tf.tile(none, plan.inner + 1), none),
        )
        self.places = tf.ensure_shape(places, [None, 2])
        self.more = tf.ensure_shape(more, [None])
        self.owners = tf.ensure_shape(owners, [None])

    def _crowded(self) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Where messages go, the rows that nodes before each one have more, and whose these are."""
        plan = self.plan
        inner = tf.squeeze(plan.inner, 0)
        level = tf.gather(plan.level, plan.order)
        starts = tf.squeeze(plan.starts, 1)
        above = tf.maximum(level - 1, 0)
        start, count = tf.gather(starts, above), tf.gather(plan.counts, above)
        owner, slot = tf.unstack(plan.place, axis=1)
        is_leaf = tf.range(tf.size(level, tf.int64)) >= inner
        # Leaves know their parent among all inner nodes, inner nodes among those of its level.
        parent = tf.where(is_leaf, owner, owner + start)
        of_lone_root = parent >= inner
        start = tf.where(of_lone_root, inner, start)

        number = tf.gather(plan.number, Span(tf.zeros_like(plan.inner), plan.inner).of(plan.order))
        more = tf.cumsum(tf.concat([[0], (number - 1) // self.few], axis=0))
        first, turn = tf.gather(more, parent), slot // self.few
        behind = start + count + first + turn - 1
        row = tf.where(turn > 0, behind, parent + tf.gather(more, start))
        row = tf.where(is_leaf, row, row - start - tf.gather(more, start))

        opens = tf.squeeze(tf.where((turn > 0) & (slot % self.few == 0) & ~of_lone_root), 1)
        owners = tf.tensor_scatter_nd_update(
            tf.zeros(tf.gather(more, plan.inner), tf.int64),
            tf.expand_dims(tf.gather(first + turn - 1, opens), 1),
            tf.gather(parent - start, opens),
        )
        return tf.stack([row, slot % self.few], axis=1), more, owners

    def slots(self) -> Any:
        """The arity, or as many as the largest number of children asks for."""
        return self.few if self.arity is None else [self.arity]

    def put(self, tables: list[tf.Tensor], places: tf.Tensor, messages: Any) -> list[tf.Tensor]:
        """The tables with these messages, in slots that are empty."""
        pairs = zip(tables, self.parts(messages), strict=True)
        return [tf.tensor_scatter_nd_update(table, places, part) for table, part in pairs]

    def taken(self, kind: Any, messages: Any) -> list[Any]:
        """The tables with the messages of the leaves, to take a level at a time."""
        if self.arity is not None:
            return super().taken(kind, messages)
        rows = self.plan.inner + tf.gather(self.more, self.plan.inner)
        return [_Table(table, self.more, rows) for table in self.of_leaves(rows + 1, messages)]

    def read(self, tables: list[tf.Tensor], rows: Span, messages: Any) -> Any:
        """What the cell gets: the slots themselves with an arity, or what is in them combined."""
        if self.arity is None:
            reduce = tf.reduce_sum if self.adds() else tf.reduce_max

            def reduced() -> list[tf.Tensor]:
                return [reduce(table, axis=1) for table in tables]

            def joined() -> list[tf.Tensor]:
                return [self._joined(part, rows) for part in reduced()]

            sums = tf.cond(self.is_crowded, joined, reduced)
            shapes = [[None, table.shape[-1]] for table in tables]
            tables = [tf.ensure_shape(x, shape) for x, shape in zip(sums, shapes, strict=True)]
        return super().read(tables, rows, messages)

    def _joined(self, values: tf.Tensor, rows: Span) -> tf.Tensor:
        """The values of these rows, with those of the rows behind them brought to their owners."""
        add = tf.tensor_scatter_nd_add if self.adds() else tf.tensor_scatter_nd_max
        # What is known of shapes is lost in branches, but not what is ensured.
        begin, end, number = (
            tf.ensure_shape(x, [1])
            for x in (
                tf.gather(self.more, rows.begin),
                tf.gather(self.more, rows.end),
                rows.end - rows.begin,
            )
        )
        row = [None, values.shape[-1]]
        owners = tf.ensure_shape(Span(begin, end).of(tf.expand_dims(self.owners, 1)), [None, 1])
        own, behind = tf.split(tf.ensure_shape(values, row), tf.concat([number, end - begin], 0))
        return add(own, owners, tf.ensure_shape(behind, row))


class _Table:
    """A table whose levels have more rows than nodes; taken as `Slices` are.

    Args:
        values: (rows, slots, width).
        more: (inner nodes + 1,) how many rows the nodes before have more.
        end: (1,) where the deepest level ends.
    """

    shape = tf.TensorShape([1])

    def __init__(self, values: tf.Tensor, more: tf.Tensor, end: tf.Tensor):
        self.values, self.more, self.start = values, more, end

    def take(self, rows: Span, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The deepest level that was not taken yet, whose nodes these are."""
        begin = rows.begin + tf.gather(self.more, rows.begin)
        return Span(begin, end).of(self.values), begin
