"""The pass from the leaves to the roots."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.trees.cells.base import FEW_SLOTS, Children
from keras_blocks.mechanisms.trees.kernels import active_kernels, use_kernels
from keras_blocks.mechanisms.trees.levels import DiscardingWriter, RowRange
from keras_blocks.mechanisms.trees.passes.base import States, TreePass, as_states
from keras_blocks.mechanisms.trees.passes.deferred_gradients import DeferredGradients, in_order
from keras_blocks.mechanisms.trees.wide_messages import LazySlotTable


class UpwardPass(TreePass):
    """One way up a batch of trees."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        adds_once = "adds_once" in vars(type(self.cell))
        self.ops = DeferredGradients(self.plan) if self.training and adds_once else active_kernels()
        self.leaves = as_states(self.cell.leaves(self.features.of_all_leaves()))
        self.owner = self.plan.place[:, :1]

    def roots(self, batch: tf.Tensor) -> tf.Tensor:
        """(batch, units): the vector of each root, zeros for a tree without nodes.

        Args:
            batch: int64 (1,) how many trees there are. The roots of a forest are summed.
        """
        vectors = self._climbed(all_nodes=False)
        plan = self.plan
        first = tf.zeros_like(plan.inner)
        inner = RowRange(first, tf.shape(vectors, tf.int64)[:1]).of(plan.order)
        lone = tf.squeeze(tf.where(plan.is_root & (plan.number == 0)), 1)
        lone_vectors = tf.gather(self.leaves[0], tf.gather(plan.rank, lone) - plan.inner)
        rows = tf.gather(plan.row, tf.concat([inner, lone], axis=0))
        return tf.tensor_scatter_nd_add(
            tf.zeros(tf.concat([batch, vectors.shape[1:]], axis=0), vectors.dtype),
            tf.expand_dims(rows, 1),
            tf.concat([vectors, lone_vectors], axis=0),
        )

    def nodes(self) -> tf.Tensor:
        """(all nodes, units): the vector of each node, as given."""
        inner = self._climbed(all_nodes=True)
        vectors = tf.concat([inner, self.leaves[0]], axis=0)
        return (in_order if self.training else tf.gather)(vectors, self.plan.upward())

    def _climbed(self, all_nodes: bool) -> tf.Tensor:
        """The vectors of roots with children, or of all inner nodes, the deepest level first."""
        form = inputs, messages = self._prepared()
        kind, counts = self.taken_as, self.plan.counts[: self.plan.levels]
        taken: list[Any] = [kind(values, counts) for values in keras.tree.flatten(inputs)]
        if (self.cell.arity or 0) > FEW_SLOTS:
            parts = keras.tree.flatten(messages)
            taken += [LazySlotTable(kind, self.reduction, part) for part in parts]
        else:
            taken += self.reduction.taken(kind, messages)
        roots, nodes = self._loop(form, taken, all_nodes)
        return nodes if all_nodes else roots

    def _prepared(self) -> tuple[Any, Any]:
        """What the cell prepares of the inner nodes, and the messages of the leaves."""
        plan = self.plan
        # One row more than there are inner nodes: what leaves that are roots send goes there.
        rows = RowRange(tf.zeros_like(plan.inner), plan.inner + 1).of(plan.order)
        with use_kernels(self.ops):
            inputs = self.features.prepared(self.cell, rows)
        return inputs, self.cell.message(inputs, self._children(self.leaves, plan.leaves))

    def _loop(self, form: Any, taken: list[Any], all_nodes: bool) -> tuple[tf.Tensor, Any]:
        """The vectors of all roots with children, and those of all inner nodes if asked."""
        plan, dtype = self.plan, self.leaves[0].dtype
        states = tuple(tf.zeros([0, size], dtype) for size in self.sizes)
        shapes = tuple(tf.TensorShape([None, size]) for size in self.sizes)
        one = tf.TensorShape([1])
        book = self.ops.writer(self.sizes[:1], dtype) if all_nodes else DiscardingWriter()
        piles = self.ops.piles()

        def step(level: Any, end: Any, last: Any, states: States, lists: Any, put: Any) -> Any:
            rows, below = RowRange(tf.gather(plan.starts, level), end), RowRange(end, last)
            pairs = [t.take(rows, k) for t, k in zip(taken, lists, strict=True)]
            with use_kernels(self.ops):
                states = self._level(form, [value for value, _ in pairs], states, rows, below)
            vectors = zip(piles, self.ops.of_level(), put[1], strict=True)
            put = book.put(states[0], put[0]), [p.put(v, k) for p, v, k in vectors]
            return level - 1, rows.begin, end, states, [k for _, k in pairs], put

        end = plan.inner
        nothing = book.start, [p.start for p in piles]
        of_nothing = book.shape, [p.shape for p in piles]
        start = (plan.levels - 1, end, end, states, [t.start for t in taken], nothing)
        shape = (plan.levels.shape, one, one, shapes, [t.shape for t in taken], of_nothing)
        *_, states, _, put = tf.while_loop(lambda level, *_: level >= 0, step, start, shape)
        self.ops.after_loop(put[1])
        return states[0], book.rows(put[0])

    def _level(
        self, form: Any, values: Any, states: States, rows: RowRange, below: RowRange
    ) -> States:
        """The states of the nodes in `rows` from those of the inner nodes `below` them."""
        form, sent = form
        parts = len(keras.tree.flatten(form))
        inputs, tables = keras.tree.pack_sequence_as(form, values[:parts]), values[parts:]
        messages = self.cell.message(inputs, self._children(states, below))
        tables = self.reduction.add(tables, below, messages)
        children = self.reduction.read(tables, rows, sent)
        return as_states(self.cell(inputs, children=children))

    def _children(self, states: States, rows: RowRange) -> Children:
        """The children that stand in these rows of the plan."""
        return Children(self.underway(states, rows), rows.of(self.owner), self.edges_of(rows))
