"""How children's messages are summed in a file: taken side by side to their node, then reduced.

A sum in one place for all of them goes value by value, so as not to race (`lowerings.scatter`).
Here whole messages are copied, each once, from a list that every level makes of its children.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.tree_cell import FEW_SLOTS
from keras_blocks.mechanisms.tree_levels import Span
from keras_blocks.mechanisms.tree_messages import Combination
from keras_blocks.mechanisms.tree_schedule import Schedule


class Taken(Combination):
    """Messages that are taken into the slots of their node: as many as its arity, or a few.

    The few are reduced. A node with more children has more rows of them, which stand behind the
    rows of its level, and are added to its own.

    Args:
        kind: "sum", "mean" or "max".
        arity: int, or None; with it nothing is reduced.
        plan: the order of the nodes, with slots, and leaves by level.
    """

    def __init__(self, kind: str, arity: int | None, plan: Schedule):
        super().__init__(kind, arity, plan)
        most = tf.reduce_max(tf.concat([[1], plan.number], axis=0), keepdims=True)
        few = tf.minimum(most, FEW_SLOTS)
        self.few = few if arity is None else tf.constant([arity], tf.int64)
        self.is_crowded = tf.squeeze(most > FEW_SLOTS, 0)
        self.rows = plan.inner
        self._find_sources()

    def _find_sources(self) -> None:
        """Finds what each slot takes.

        sources: int64 (rows of slots, few) places in the list of a level: nothing, its leaves, its
            inner nodes.
        leaves: (inner nodes + 1,) how many leaves stand on the levels down to that of the node.
        """
        plan = self.plan
        level = tf.gather(plan.level, plan.order)
        rank = tf.range(tf.size(level, tf.int64))
        is_leaf = rank >= plan.inner
        starts, above = tf.squeeze(plan.starts, 1), tf.maximum(level - 1, 0)
        start = tf.gather(starts, above)
        owner, slot = tf.unstack(plan.place, axis=1)
        # Leaves know their parent among all inner nodes, inner nodes among those of its level.
        row = tf.where(is_leaf, owner, owner + start)
        if self.arity is None:
            row, slot = self._in_rows(row, slot, start, tf.gather(starts + plan.counts, above))

        counts = tf.tensor_scatter_nd_add(
            tf.zeros_like(level), tf.expand_dims(level, 1), tf.cast(is_leaf, tf.int64)
        )
        ends = tf.cumsum(counts)
        inner = Span(tf.zeros_like(plan.inner), plan.inner)
        self.leaves = tf.concat([tf.gather(ends, inner.of(level)), plan.nodes - plan.inner], axis=0)
        of_leaf = rank - plan.inner - tf.gather(ends - counts, level)
        of_inner = rank - tf.gather(starts, level) + tf.gather(counts, level)
        self.sources = tf.tensor_scatter_nd_update(
            tf.zeros(tf.concat([self.rows + 1, self.few], axis=0), tf.int64),
            tf.stack([row, slot], axis=1),
            1 + tf.where(is_leaf, of_leaf, of_inner),
        )

    def _in_rows(
        self, parent: tf.Tensor, slot: tf.Tensor, start: tf.Tensor, end: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The row of each child and its slot there; the level of its parent is from start to end.

        more: (inner nodes + 1,) how many rows the nodes before have more.
        owners: the node, in its level, of each row behind.
        """
        plan, few = self.plan, self.few
        is_child, turn, slot = parent < plan.inner, slot // few, slot % few
        inner = Span(tf.zeros_like(plan.inner), plan.inner)
        number = tf.gather(plan.number, inner.of(plan.order))
        self.more = tf.cumsum(tf.concat([[0], (number - 1) // few], axis=0))
        self.rows = plan.inner + tf.gather(self.more, plan.inner)
        behind = tf.gather(self.more, parent) + turn - 1
        row = tf.where(turn > 0, end + behind, parent + tf.gather(self.more, start))
        opens = tf.squeeze(tf.where(is_child & (turn > 0) & (slot == 0)), 1)
        self.owners = tf.tensor_scatter_nd_update(
            tf.zeros(tf.gather(self.more, plan.inner), tf.int64),
            tf.expand_dims(tf.gather(behind, opens), 1),
            tf.gather(parent - start, opens),
        )
        return tf.where(is_child, row, self.rows), slot  # the last is a row that nobody takes

    def taken(self, kind: Any, messages: Any) -> list[Any]:
        """The sources of each level, and the messages of its leaves."""
        leaves = self.plan.nodes - self.plan.inner
        of_leaves = [_Shifted(part, self.leaves, leaves) for part in keras.tree.flatten(messages)]
        if self.arity is not None:
            return [kind(self.sources, self.plan.counts), *of_leaves]
        shifts = tf.range(tf.size(self.more, tf.int64)) + self.more
        return [_Shifted(self.sources, shifts, self.rows), *of_leaves]

    def add(self, tables: list[tf.Tensor], rows: Span, messages: Any) -> list[tf.Tensor]:
        """The slots of a level, (rows of slots, slots, width)."""
        (sources, *of_leaves), least = tables, 0 if self.adds() else -math.inf
        filled = []
        for leaves, inner in zip(of_leaves, keras.tree.flatten(messages), strict=True):
            # What is known of shapes is lost in loops and branches, but not what is ensured.
            inner = tf.ensure_shape(inner, [None, inner.shape[-1]])
            nothing = tf.fill([1, inner.shape[-1]], tf.constant(least, inner.dtype))
            slots = tf.gather(tf.concat([nothing, leaves, inner], axis=0), sources)
            filled.append(tf.ensure_shape(slots, [None, self.arity, inner.shape[-1]]))
        return filled

    def read(self, tables: list[tf.Tensor], rows: Span, messages: Any) -> Any:
        """What the cell gets: what is in the slots, without an arity combined."""
        if self.arity is not None:
            return super().read(tables, rows, messages)
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


class _Shifted:
    """Rows of which a level has others than nodes; taken as `Slices` are.

    Args:
        values: the rows.
        begins: int64 (inner nodes + 1,) where those of a level begin, at its first node.
        end: (1,) where those of the deepest level end.
    """

    shape = tf.TensorShape([1])

    def __init__(self, values: tf.Tensor, begins: tf.Tensor, end: tf.Tensor):
        self.values, self.begins, self.start = values, begins, end

    def take(self, rows: Span, end: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The deepest level that was not taken yet, whose nodes these are."""
        begin = tf.gather(self.begins, rows.begin)
        return Span(begin, end).of(self.values), begin
