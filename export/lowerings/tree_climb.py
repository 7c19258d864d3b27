"""The pass from the leaves to the roots in a file.

On each level all is done that its nodes need: leaves are not computed before, nor are features
multiplied. What a level reads and makes stays in the cache, where that of a large batch would go to
memory and back. Nothing of the width of a state is kept for longer than a level.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.export.lowerings.tree_seats import Seats
from keras_blocks.export.lowerings.tree_slots import Slots
from keras_blocks.mechanisms.tree_cell import Children
from keras_blocks.mechanisms.tree_levels import Nowhere, Span
from keras_blocks.mechanisms.tree_ops import ops
from keras_blocks.mechanisms.tree_pass import Pass, States, as_states


class LevelClimb(Pass):
    """One way up a batch of trees; made and used as `Climb` is."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.seats = Seats(self.plan)
        self.slots = Slots(self.combination, self.plan, self.seats)
        self.parent = tf.gather(self.seats.parent, self.seats.rank)
        if self.edges is not None:
            self.edges = tf.gather(self.edges, self.seats.rank)

    def roots(self, batch: tf.Tensor) -> tf.Tensor:
        """(batch, units): the vector of each root, zeros for a tree without nodes.

        Args:
            batch: int64 (1,) how many trees there are. The roots of a forest are summed.
        """
        vectors, _ = self._climbed(all_nodes=False)
        nodes = self.plan.nodes
        roots = Span(nodes - tf.shape(vectors, tf.int64)[:1], nodes).of(self.seats.order)
        return tf.tensor_scatter_nd_add(
            tf.zeros(tf.concat([batch, vectors.shape[1:]], axis=0), vectors.dtype),
            tf.expand_dims(tf.gather(self.plan.row, roots), 1),
            vectors,
        )

    def nodes(self) -> tf.Tensor:
        """(all nodes, units): the vector of each node, as given."""
        _, vectors = self._climbed(all_nodes=True)
        return tf.gather(vectors, tf.gather(self.seats.of_rank, self.plan.rank))

    def _climbed(self, all_nodes: bool) -> tuple[tf.Tensor, Any]:
        """The vectors of the roots, and those of all nodes by seat if asked."""
        zero, end = tf.zeros_like(self.plan.inner), self.seats.deepest
        states = self._leaves(Span(zero, end))
        pile = ops().pile(self.sizes[:1], states[0].dtype) if all_nodes else Nowhere()

        def step(level: Any, below: Any, begin: Any, inner: Any, states: States, kept: Any) -> Any:
            inner_end, between, end = tf.split(tf.gather(self.seats.ends, level), 3)
            children = Span(below, begin), Span(inner, inner_end)
            states = self._inner(states, *children, Span(begin, between))
            leaves = self._leaves(Span(between, end))
            states = tuple(tf.concat(pair, axis=0) for pair in zip(states, leaves, strict=True))
            return level - 1, begin, end, inner_end, states, pile.put(states[0], kept)

        level, kept = self.plan.levels - 1, pile.put(states[0], pile.start)
        start = (level, zero, end, zero, states, kept)
        one, rows = tf.TensorShape([1]), tuple(tf.TensorShape([None, n]) for n in self.sizes)
        shape = (level.shape, one, one, one, rows, pile.shape)
        *_, states, kept = tf.while_loop(lambda level, *_: level >= 0, step, start, shape)
        return states[0], pile.rows(kept)

    def _leaves(self, seats: Span) -> States:
        """The states of the leaves on these seats."""
        features = self.features.of_leaves(seats.of(self.seats.order))
        return as_states(self.cell.leaves(features))

    def _inner(self, states: States, below: Span, inner: Span, seats: Span) -> States:
        """The states of the inner nodes on these seats from those of the children below.

        Args:
            inner: which they are among the inner nodes.
        """
        inputs = self.features.prepared(self.cell, seats.of(self.seats.order))
        owner = tf.expand_dims(below.of(self.parent) - inner.begin, 1)
        messages = self.cell.message(inputs, Children(states, owner, self.edges_of(below)))
        return as_states(self.cell(inputs, children=self.slots.combined(messages, inner)))
