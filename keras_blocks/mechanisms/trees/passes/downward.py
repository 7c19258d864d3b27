"""The pass from the roots to the leaves: each node gets the states of its one parent."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.mechanisms.trees.cells.base import Children
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.levels import RowRange
from keras_blocks.mechanisms.trees.passes.base import States, TreePass, as_states


class DownwardPass(TreePass):
    """One way down a batch of trees.

    The parent stands where a lone child would: for the cell a root is a leaf, and every other node
    has one child. Leaves, below which nothing hangs, are done once, after the loop.
    """

    def nodes(self) -> tf.Tensor:
        """(all nodes, units): the vector of each node, as given."""
        states, lone, vectors = self._roots()
        inner = self._inner(states)
        leaves = tf.tensor_scatter_nd_update(self._leaves(inner), lone, vectors)
        return tf.gather(tf.concat([inner[0], leaves], axis=0), self.plan.rank)

    def _roots(self) -> tuple[States, tf.Tensor, tf.Tensor]:
        """The states of roots with children, then where the others stand and their vectors.

        All in one call: a layer may not stand one for none, such as one that keeps statistics.
        """
        plan, features = self.plan, self.features
        is_inner = plan.is_root & (plan.number > 0)
        inner = tf.reduce_sum(tf.cast(is_inner, tf.int64), keepdims=True)
        lone = tf.where(plan.is_root & (plan.number == 0))
        places = tf.gather_nd(plan.rank, lone) - plan.inner
        nodes = RowRange(tf.zeros_like(inner), inner).of(plan.order)
        roots = [features.of_inner(nodes), tf.gather(features.of_all_leaves(), places)]
        sizes = tf.concat([inner, tf.shape(places, tf.int64)], axis=0)
        states = as_states(self.cell.leaves(tf.concat(roots, axis=0)))
        split = [tf.split(state, sizes) for state in states]
        return tuple(first for first, _ in split), tf.expand_dims(places, 1), split[0][1]

    def _inner(self, states: States) -> States:
        """The states of all inner nodes from those of the roots, in the order of the plan."""
        plan = self.plan
        roots = tf.shape(states[0], tf.int64)[:1]
        nothing = tf.zeros_like(roots)
        # The levels below, the deepest first, as they are taken from the end.
        order = RowRange(nothing, plan.inner).of(plan.order)
        upward = tf.expand_dims(tf.gather(plan.upward(), order), 1)
        order = tf.tensor_scatter_nd_update(tf.zeros_like(order), upward, order)
        below = RowRange(nothing, plan.inner - roots).of(order)
        inputs = self.features.prepared(self.cell, below)
        counts = tf.reverse(plan.counts[1 : tf.maximum(plan.levels, 1)], [0])
        taken = [self.taken_as(values, counts) for values in keras.tree.flatten(inputs)]
        return self._loop(states, roots, inputs, taken)

    def _loop(self, states: States, roots: tf.Tensor, form: Any, taken: Any) -> States:
        plan, sizes = self.plan, self.sizes
        counts = tf.expand_dims(plan.counts, 1)
        piles = [active_kernels().writer([size], states[0].dtype) for size in sizes]

        def put(states: States, kept: Any) -> list[Any]:
            return [p.put(s, k) for p, s, k in zip(piles, states, kept, strict=True)]

        def step(level: Any, begin: Any, states: States, lists: Any, kept: Any) -> Any:
            end = begin + tf.gather(counts, level)
            rows = RowRange(plan.inner - end, plan.inner - begin)
            pairs = [t.take(rows, k) for t, k in zip(taken, lists, strict=True)]
            inputs = keras.tree.pack_sequence_as(form, [value for value, _ in pairs])
            states = self._level(inputs, states, RowRange(begin, end))
            return level + 1, end, states, [k for _, k in pairs], put(states, kept)

        kept = put(states, [p.start for p in piles])
        start = (tf.constant(1, tf.int64), roots, states, [t.start for t in taken], kept)
        rows = tuple(tf.TensorShape([None, size]) for size in sizes)
        one = tf.TensorShape([1])
        shape: Any = (
            plan.levels.shape,
            one,
            rows,
            [t.shape for t in taken],
            [p.shape for p in piles],
        )
        *_, kept = tf.while_loop(lambda level, *_: level < plan.levels, step, start, shape)
        return tuple(p.rows(k) for p, k in zip(piles, kept, strict=True))

    def _level(self, inputs: Any, states: States, rows: RowRange) -> States:
        """The states of the nodes in these rows of the plan, from those their places point to."""
        parents = rows.of(self.plan.place)[:, :1]
        states = tuple(tf.gather_nd(state, parents) for state in states)
        owner = tf.expand_dims(tf.range(tf.shape(parents, tf.int64)[0]), 1)
        children = Children(self.underway(states, rows), owner, self.edges_of(rows))
        messages = self.cell.message(inputs, children)
        return as_states(self.cell(inputs, children=self.reduction.of_one(messages)))

    def _leaves(self, inner: States) -> tf.Tensor:
        """(leaves, units), in the order of the plan; those of roots mean nothing."""
        inputs = self.cell.prepare(self.features.of_all_leaves())
        # Leaves that are roots point behind the inner nodes.
        padded = tuple(tf.pad(state, [[0, 1], [0, 0]]) for state in inner)
        return self._level(inputs, padded, self.plan.leaves)[0]
