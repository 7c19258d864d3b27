"""What the passes over a batch of trees share: the way up and the way down."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.trees.cells.base import TreeCell, state_sizes
from keras_blocks.mechanisms.trees.features import NodeFeatures
from keras_blocks.mechanisms.trees.levels import PoppedLevels, RowRange, SlicedLevels
from keras_blocks.mechanisms.trees.messages import ChildReduction
from keras_blocks.mechanisms.trees.schedule import Schedule

States = tuple[tf.Tensor, ...]


class TreePass:
    """A cell on its way over a batch of trees.

    Args:
        cell: what is applied to each level.
        features: those of the nodes.
        plan: the order of the nodes.
        edges: int64 (nodes,) the labels of the edges above them as given, or None.
        kept: (nodes, state size) in the order of the plan, what is kept of each node's first state
            on its way to the next, or None: all of it.
        training: bool, whether the gradient will be asked for: then levels are kept in lists.
    """

    def __init__(
        self,
        cell: TreeCell,
        features: NodeFeatures,
        plan: Schedule,
        edges: tf.Tensor | None,
        kept: tf.Tensor | None,
        training: bool,
    ):
        self.cell, self.features, self.plan, self.training = cell, features, plan, training
        self.edges = None if edges is None else tf.gather(edges, plan.order)
        self.kept = kept
        self.sizes = state_sizes(cell)
        self.reduction = ChildReduction(cell.combine, cell.arity, plan)
        self.taken_as: Any = PoppedLevels if training else SlicedLevels

    def underway(self, states: States, rows: RowRange) -> States:
        """What is kept of these states, which belong to these rows of the plan."""
        if self.kept is None:
            return states
        return states[0] * rows.of(self.kept), *states[1:]

    def edges_of(self, rows: RowRange) -> tf.Tensor | None:
        """The labels of the edges above these rows of the plan."""
        return None if self.edges is None else rows.of(self.edges)


def as_states(outputs: Any) -> States:
    """The states that a cell gave, as a tuple also where there is one."""
    return tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)
