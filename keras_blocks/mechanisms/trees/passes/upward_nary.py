"""The way up of a Tree-LSTM over children with places, with its gradient written out.

A level has few rows, so that each operation costs more than its arithmetic. TensorFlow's gradient
of a loop takes many: it keeps what it cannot know to be needless, and looks for rows that were read
twice. But each node has one parent, so what reaches a node is one row of what left the level above,
and the gradient of the kernel is one product of all levels.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.trees import lstm_gates as pointwise
from keras_blocks.mechanisms.trees.cells.base import FEW_SLOTS, TreeCell
from keras_blocks.mechanisms.trees.cells.lstm import NaryTreeLSTMCell
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.levels import LevelWriter, RowRange, SlicedLevels, pop
from keras_blocks.mechanisms.trees.passes.base import States
from keras_blocks.mechanisms.trees.passes.upward import UpwardPass

_ONE = tf.TensorShape([1])
_LIST = LevelWriter.shape


class NaryClimb(UpwardPass):
    """A climb of a `NaryTreeLSTMCell` with few slots, whose gradient will be asked for."""

    cell: NaryTreeLSTMCell

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.units, self.arity = self.cell.units, self.cell.arity
        self.dtype = self.leaves[0].dtype
        end = tf.expand_dims(self.plan.inner, 0)
        # Below the last level, and where there is none, nothing begins.
        self.begins = tf.concat([self.plan.starts, end, end, end], axis=0)
        self.rows = RowRange(self.begins[0], self.plan.inner)
        self.states = (tf.TensorShape([None, self.units]),) * 2

    def _climbed(self, all_nodes: bool) -> tf.Tensor:
        """The vectors of roots with children, or of all inner nodes, the deepest level first."""

        @tf.custom_gradient
        def vectors(own: tf.Tensor, kernel: tf.Tensor, *leaves: tf.Tensor) -> Any:
            put, saved = self._up(own, kernel, leaves)
            return put, lambda upstream: self._down(tf.convert_to_tensor(upstream), kernel, saved)

        kernel = tf.convert_to_tensor(self.cell.recurrent_kernel)
        inner = vectors(self._own(), kernel, *self.underway(self.leaves, self.plan.leaves))
        end = self.plan.inner
        return inner if all_nodes else RowRange(end - self.begins[1], end).of(inner)

    def _own(self) -> tf.Tensor:
        """(inner nodes, 4 * units): W x + b of the gates i, o, c, f; one row of b for all if so."""
        if self.features.on_leaves:
            return self.cell.biases(0, 4, 1)
        nodes = self.rows.of(self.plan.order)
        return self.cell.of_features(self.features.of_inner(nodes), 0, 4)[0]

    def _nothing(self, rows: Any) -> States:
        """h and c, or their gradients, of so many nodes: zeros."""
        zeros = tf.zeros(tf.concat([rows, [self.units]], axis=0), self.dtype)
        return zeros, zeros

    def _up(self, own: tf.Tensor, kernel: tf.Tensor, leaves: States) -> tuple[tf.Tensor, Any]:
        """The vectors of all inner nodes, the deepest level first, and what `_down` needs."""
        reduction, width = self.reduction, self.arity * self.units
        tables = reduction.taken(SlicedLevels, leaves)
        forget = own[:, 3 * self.units :]
        sums = tf.concat([own, *[forget] * (self.arity - 1)], axis=1)
        if self.features.on_leaves:
            sums = tf.squeeze(sums, 0)
        book, saved = LevelWriter([self.units], self.dtype), LevelWriter([-1], self.dtype)

        def step(level: Any, end: Any, last: Any, states: States, kept: Any, put: Any) -> Any:
            rows, below = RowRange(tf.gather(self.begins, level), end), RowRange(end, last)
            slots = [table.take(rows, ())[0] for table in tables]
            slots = reduction.add(slots, below, self.underway(states, below))
            hidden, memory = (tf.reshape(slot, [-1, width]) for slot in slots)
            added = sums if self.features.on_leaves else rows.of(sums)
            gates = active_kernels().product(hidden, kernel, added)
            states, needed = pointwise.n_ary(gates, memory)
            for part in hidden, *needed:
                kept = saved.put(part, kept)
            return level - 1, rows.begin, end, states, kept, book.put(states[0], put)

        end = self.plan.inner
        nothing = self._nothing([0])
        start = self.plan.levels - 1, end, end, nothing, saved.start, book.start
        shape = self.plan.levels.shape, _ONE, _ONE, self.states, _LIST, _LIST
        *_, kept, put = tf.while_loop(lambda level, *_: level >= 0, step, start, shape)
        return book.rows(put), kept

    def _down(self, upstream: tf.Tensor, kernel: tf.Tensor, saved: Any) -> Any:
        """The gradients of what `_climbed` computes the vectors from."""
        units, width = self.units, self.arity * self.units
        widths = [width, *pointwise.n_ary_widths(units, self.arity)]
        row, slot = tf.unstack(self.plan.place, axis=1)
        sent = row * self.arity + slot
        piles = [LevelWriter([size], self.dtype) for size in (width, kernel.shape[1], units, units)]

        def step(level: Any, end: Any, top: Any, states: States, kept: Any, put: Any) -> Any:
            below = RowRange(end, tf.gather(self.begins, level + 2))
            parts: list[tf.Tensor] = []
            for size in reversed(widths):
                kept, part = pop(kept, [size], self.dtype)
                parts.insert(0, part)
            hidden, *needed = parts
            low = top - tf.shape(states[0], tf.int64)[:1]
            of_hidden = states[0] + RowRange(low, top).of(upstream)
            of_gates, of_memory = pointwise.n_ary_gradient(tuple(needed), of_hidden, states[1])
            of_slots = tf.matmul(of_gates, kernel, transpose_b=True)
            of_slots, of_memory = (tf.reshape(x, [-1, units]) for x in (of_slots, of_memory))
            found = zip(piles, (hidden, of_gates, of_slots, of_memory), put, strict=True)
            put = [writer.put(part, done) for writer, part, done in found]
            reached = tuple(tf.gather(x, below.of(sent)) for x in (of_slots, of_memory))
            return level + 1, below.end, low, self.underway(reached, below), kept, put

        start = (
            tf.zeros_like(self.plan.levels), self.begins[1], self.plan.inner,
            self._nothing(self.begins[1]), saved, [writer.start for writer in piles],
        )  # fmt: skip
        shape = self.plan.levels.shape, _ONE, _ONE, self.states, _LIST, [_LIST] * 4
        going_on = lambda level, *_: level < self.plan.levels  # noqa: E731
        *_, put = tf.while_loop(going_on, step, start, shape)
        # What leaves that are roots send is taken by nobody.
        nobody = tf.zeros([self.arity, units], self.dtype)
        put[2:] = [
            writer.put(nobody, done) for writer, done in zip(piles[2:], put[2:], strict=True)
        ]
        hidden, of_gates, *of_slots = (p.rows(x) for p, x in zip(piles, put, strict=True))
        of_leaves = [tf.gather(part, self.plan.leaves.of(sent)) for part in of_slots]
        of_kernel = tf.matmul(hidden, of_gates, transpose_a=True)
        return self._of_own(of_gates), of_kernel, *of_leaves

    def _of_own(self, of_gates: tf.Tensor) -> tf.Tensor:
        """The gradient of `_own` from that of all gates."""
        if self.features.on_leaves:
            of_gates = tf.reduce_sum(of_gates, axis=0, keepdims=True)
        of_own, *of_forgets = tf.split(of_gates, [3 * self.units] + [self.units] * self.arity, 1)
        return tf.concat([of_own, tf.add_n(of_forgets)], axis=1)


def climb(cell: TreeCell, *args: Any) -> UpwardPass:
    """A climb of this cell, whose last argument says whether its gradient will be asked for."""
    # A subclass may compute otherwise.
    written_out = type(cell) is NaryTreeLSTMCell and cell.arity <= FEW_SLOTS
    return (NaryClimb if args[-1] and written_out else UpwardPass)(cell, *args)
