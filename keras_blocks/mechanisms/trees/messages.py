"""The messages of children, brought together at their parents."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.trees.levels import RowRange

if TYPE_CHECKING:
    from keras_blocks.mechanisms.trees.schedule import Schedule


class ChildReduction:
    """How the messages to a node become what its cell gets.

    They gather in tables, one for each part of a message, with a row for each node: (nodes, width),
    or (nodes, arity, width) where children have places of their own.

    Args:
        kind: "sum", "mean" or "max".
        arity: int, or None; with it nothing is combined.
        plan: the order of the nodes.
    """

    def __init__(self, kind: str, arity: int | None, plan: Schedule):
        self.kind, self.arity, self.plan = kind, arity, plan
        self.number: tf.Tensor | None = None
        if arity is None and kind == "mean":
            rows = RowRange(tf.zeros_like(plan.inner), plan.inner).of(plan.order)
            self.number = tf.expand_dims(tf.gather(plan.number, rows), 1)

    def taken(self, kind: Any, messages: Any) -> list[Any]:
        """The tables of all levels, with the messages of the leaves, to take a level at a time.

        Args:
            kind: `SlicedLevels` or `PoppedLevels`.
            messages: what `TreeCell.message` gave for the leaves.
        """
        # One row more than there are inner nodes: what leaves that are roots send goes there.
        plan = self.plan
        empty = [self.empty(plan.inner + 1, part) for part in keras.tree.flatten(messages)]
        tables = self.put(empty, plan.leaves.of(plan.place), messages)
        return [kind(table, plan.counts[: plan.levels]) for table in tables]

    def add(self, tables: list[tf.Tensor], rows: RowRange, messages: Any) -> list[tf.Tensor]:
        """The tables of a level, with messages of the inner nodes in these rows of the plan."""
        return self.put(tables, rows.of(self.plan.place), messages)

    def put(self, tables: list[tf.Tensor], places: tf.Tensor, messages: Any) -> list[tf.Tensor]:
        """The tables with these messages besides those that are there.

        Args:
            tables: one for each part of a message.
            places: int64 (children, 1) the row of each message, or (children, 2) with its slot.
            messages: what `TreeCell.message` gave.
        """
        put = tf.tensor_scatter_nd_add if self.adds() else tf.tensor_scatter_nd_max
        pairs = zip(tables, keras.tree.flatten(messages), strict=True)
        return [put(table, places, part) for table, part in pairs]

    def adds(self) -> bool:
        """Whether what is in a place is added to it, and not the larger kept."""
        return self.kind != "max" or self.arity is not None

    def read(self, tables: list[tf.Tensor], rows: RowRange, messages: Any) -> Any:
        """What the cell gets, in the form of its messages.

        Args:
            tables: those of a level, full.
            rows: the inner nodes of the level.
            messages: any, for their form.
        """
        if self.number is not None:
            number = tf.cast(rows.of(self.number), tables[0].dtype)
            tables = [table / number for table in tables]
        return keras.tree.pack_sequence_as(messages, tables)

    def of_one(self, messages: Any) -> Any:
        """What the cell gets where each node has one message, in their order."""
        if self.arity is None:
            return messages
        empty = [[0, 0], [0, self.arity - 1], [0, 0]]
        return keras.tree.map_structure(lambda m: tf.pad(m[:, None, :], empty), messages)

    def empty(self, nodes: tf.Tensor, message: tf.Tensor) -> tf.Tensor:
        """The table of so many nodes for messages like this one, with none in it."""
        slots = [] if self.arity is None else [self.arity]
        shape = tf.concat([nodes, [*slots, message.shape[-1]]], axis=0)
        return tf.fill(shape, tf.constant(0 if self.adds() else -math.inf, message.dtype))
