"""The pass from the leaves to the roots in a file.

On each level all is done that its nodes need: leaves are not computed before, nor are features
multiplied. What a level reads and makes stays in the cache, where that of a large batch would go to
memory and back. Nothing of the width of a state is kept for longer than a level.

In a small batch it is the weights that would come from memory on each level anew. There all is done
before that needs no children.
"""

from __future__ import annotations

import copy
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.trees.child_slots import ChildSlots
from keras_blocks.export.lowerings.trees.level_order import LevelOrder
from keras_blocks.mechanisms.trees.cells.base import Children, TreeCell
from keras_blocks.mechanisms.trees.features import NodeFeatures
from keras_blocks.mechanisms.trees.kernels import active_kernels, use_kernels
from keras_blocks.mechanisms.trees.levels import DiscardingWriter, RowRange
from keras_blocks.mechanisms.trees.passes.base import States, TreePass, as_states
from keras_blocks.mechanisms.trees.schedule import Schedule
from keras_blocks.size_sums import sum_of_sizes

FEW_NODES = 1000
"""What so many need of themselves fits into the cache beside the weights of a level."""


class LevelClimb(TreePass):
    """One way up a batch of trees; made and used as `UpwardPass` is."""

    def __init__(
        self,
        cell: TreeCell,
        features: NodeFeatures,
        plan: Schedule,
        edges: tf.Tensor | None,
        *args: Any,
    ):
        super().__init__(cell, features, plan, None, *args)
        self.level_order = LevelOrder(self.plan)
        self.slots = ChildSlots(self.reduction, self.plan, self.level_order)
        self.order = self.level_order.by_seat(self.level_order.children)
        self.parent = tf.expand_dims(self.level_order.by_seat(self.level_order.parent), 1)
        self.edges = None if edges is None else tf.gather(edges, self.order)

    def roots(self, batch: tf.Tensor) -> tf.Tensor:
        """(batch, units): the vector of each root, zeros for a tree without nodes.

        Args:
            batch: int64 (1,) how many trees there are. The roots of a forest are summed.
        """
        (vectors,) = self._climbed(all_nodes=False)
        nodes = self.plan.nodes
        roots = RowRange(nodes - tf.shape(vectors, tf.int64)[:1], nodes).of(self.order)
        return tf.tensor_scatter_nd_add(
            tf.zeros(tf.concat([batch, vectors.shape[1:]], axis=0), vectors.dtype),
            tf.expand_dims(tf.gather(self.plan.row, roots), 1),
            vectors,
        )

    def nodes(self) -> tf.Tensor:
        """(all nodes, units): the vector of each node, as given."""
        _, vectors = self._climbed(all_nodes=True)
        return tf.gather(vectors, self.level_order.by_node(self.level_order.seat))

    def _climbed(self, all_nodes: bool) -> list[tf.Tensor]:
        """The vectors of the roots, and those of all nodes by seat if asked."""
        return tf.cond(
            tf.squeeze(self.plan.nodes <= FEW_NODES, 0),
            lambda: self._loop(_Early(self), all_nodes),
            lambda: self._loop(_OnTime(self), all_nodes),
        )

    def _loop(self, own: _OnTime, all_nodes: bool) -> list[tf.Tensor]:
        zero, spans = tf.zeros_like(self.plan.nodes), self.level_order.spans
        # An empty batch has no level.
        end = sum_of_sizes(spans[3, :1], keepdims=True)
        states = own.leaves(RowRange(zero, end))
        writer = (
            active_kernels().writer(self.sizes[:1], states[0].dtype)
            if all_nodes
            else DiscardingWriter()
        )

        def step(level: Any, states: States, kept: Any) -> Any:
            of_level = tf.split(tf.gather(spans, level, axis=1), 6)
            inner, leaves, level_order = (RowRange(*of_level[at : at + 2]) for at in (0, 2, 4))
            pairs = zip(
                self._inner(own, states, level_order, inner), own.leaves(leaves), strict=True
            )
            states = tuple(tf.concat(pair, axis=0) for pair in pairs)
            return level + 1, states, writer.put(states[0], kept)

        start = (tf.constant(1, tf.int64), states, writer.begun(states[0]))
        rows = tuple(tf.TensorShape([None, n]) for n in self.sizes)
        shape = (start[0].shape, rows, writer.shape)
        go_on = lambda level, *_: level < self.level_order.levels  # noqa: E731
        _, states, kept = tf.while_loop(go_on, step, start, shape)
        results = [states[0], writer.rows(kept)] if all_nodes else [states[0]]
        return [tf.ensure_shape(x, [None, *self.sizes[:1]]) for x in results]

    def _inner(self, own: _OnTime, states: States, below: RowRange, inner: RowRange) -> States:
        """The states of these inner nodes from those on the seats below."""
        inputs = own.inputs(inner)
        children = Children(states, below.of(self.parent), self.edges_of(below))
        messages = self.cell.message(inputs, children)
        return as_states(self.cell(inputs, children=self.slots.combined(messages, inner)))


class _OnTime:
    """What nodes need of themselves alone, computed when the turn of their level comes.

    Args:
        climb: whose nodes they are.
    """

    def __init__(self, climb: LevelClimb):
        self.cell, self.features, self.level_order = climb.cell, climb.features, climb.level_order

    def leaves(self, which: RowRange) -> States:
        """The states of these leaves."""
        return self._states(which.of(self.level_order.leaves))

    def inputs(self, which: RowRange) -> Any:
        """What the cell prepares of these inner nodes."""
        return self._prepared(which.of(self.level_order.inner))

    def _states(self, leaves: tf.Tensor) -> States:
        return as_states(self.cell.leaves(self.features.of_leaves(leaves)))

    def _prepared(self, inner: tf.Tensor) -> Any:
        return self.features.prepared(self.cell, inner)


class _Early(_OnTime):
    """The same, computed of all nodes at once."""

    def __init__(self, climb: LevelClimb):
        super().__init__(climb)
        self.states = self._states(self.level_order.leaves)
        first = copy.copy(active_kernels())
        first.features_first = True
        with use_kernels(first):
            self.prepared = self._prepared(self.level_order.inner[:-1])

    def leaves(self, which: RowRange) -> States:
        """The states of these leaves."""
        return tuple(which.of(state) for state in self.states)

    def inputs(self, which: RowRange) -> Any:
        """What the cell prepares of these inner nodes."""
        return keras.tree.map_structure(which.of, self.prepared)
