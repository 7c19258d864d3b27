"""The messages of children, brought together at their parents."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.tree_levels import Span
from keras_blocks.mechanisms.tree_ops import ops
from keras_blocks.mechanisms.tree_schedule import Schedule


class Combination:
    """How the messages to a node become what its cell gets.

    They gather in tables, one for each part of a message, with a row for each node: (nodes, width),
    or (nodes, arity, width) where children have places of their own.

    Args:
        kind: "sum", "mean" or "max".
        arity: int, or None; with it nothing is combined.
    """

    def __init__(self, kind: str, arity: int | None):
        self.kind, self.arity = kind, arity

    def tables(self, nodes: tf.Tensor, places: tf.Tensor, messages: Any) -> list[tf.Tensor]:
        """The tables of so many nodes, with these messages in them.

        Args:
            nodes: int64 (1,), how many rows.
            places: int64 (children, 1) the row of each message, or (children, 2) with its slot.
            messages: what `TreeCell.message` gave.
        """
        empty = [self.empty(nodes, part) for part in keras.tree.flatten(messages)]
        return self.add(empty, places, messages)

    def add(self, tables: list[tf.Tensor], places: tf.Tensor, messages: Any) -> list[tf.Tensor]:
        """The tables with these messages besides those that are there."""
        if self.arity is not None:
            put = ops().put
        elif self.kind == "max":
            put = tf.tensor_scatter_nd_max
        else:
            put = tf.tensor_scatter_nd_add
        parts = keras.tree.flatten(messages)
        return [put(table, places, part) for table, part in zip(tables, parts, strict=True)]

    def read(self, tables: list[tf.Tensor], messages: Any, number: tf.Tensor | None) -> Any:
        """What the cell gets, in the form of its messages.

        Args:
            tables: full tables.
            messages: any, for their form.
            number: (nodes, 1) how many children each node has, for the mean.
        """
        if number is not None:
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
        least = self.kind == "max" and self.arity is None
        return tf.fill(shape, tf.constant(-math.inf if least else 0, message.dtype))


class LateTable:
    """A table of which a level is filled when it is taken, for rows too wide to be kept for all.

    Args:
        kind: `Slices` or `Stack`, to keep the messages.
        combination: how they are put into tables.
        places: int64 (children, 2) the row and the slot of each message.
        message: (children, width), one part of the messages.
        plan: the order of the nodes.
    """

    def __init__(
        self,
        kind: Any,
        combination: Combination,
        places: tf.Tensor,
        message: tf.Tensor,
        plan: Schedule,
    ):
        self.combination = combination
        owner = places[:, 0]
        order = ops().order(owner)
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

    def take(self, rows: Span, kept: Any) -> tuple[tf.Tensor, Any]:
        """The table of the deepest level that was not taken yet, whose rows these are."""
        mine = Span(tf.gather(self.begins, rows.begin), tf.gather(self.begins, rows.end))
        messages, kept = self.messages.take(mine, kept)
        places = mine.of(self.places) - tf.concat([rows.begin, [0]], axis=0)
        table = self.combination.empty(rows.end - rows.begin, messages)
        return self.combination.add([table], places, messages)[0], kept
