"""The features of the nodes of a batch of trees: of every node, or of the leaves alone."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.trees.cells.base import TreeCell
from keras_blocks.mechanisms.trees.schedule import Schedule


class NodeFeatures:
    """Gives nodes their features, or what a cell prepares of them.

    Args:
        values: (nodes, size), or (leaves, size) with `on_leaves`, as given.
        plan: the order of the nodes.
        on_leaves: bool, whether inner nodes have none: zeros stand for them.
    """

    def __init__(self, values: tf.Tensor, plan: Schedule, on_leaves: bool):
        self.values, self.plan, self.on_leaves = values, plan, on_leaves

    def of_all_leaves(self) -> tf.Tensor:
        """(leaves, size), in the order of the plan."""
        nodes = self.plan.leaves.of(self.plan.order)
        return self.values if self.on_leaves else self.of_leaves(nodes)

    def of_leaves(self, nodes: tf.Tensor) -> tf.Tensor:
        """(nodes, size) the features of these leaves."""
        if not self.on_leaves:
            return tf.gather(self.values, nodes)
        number = tf.cumsum(tf.cast(self.plan.number == 0, tf.int64), exclusive=True)
        return tf.gather(self.values, tf.gather(number, nodes))

    def of_inner(self, nodes: tf.Tensor) -> tf.Tensor:
        """(nodes, size) the features of these inner nodes."""
        if self.on_leaves:
            size = self.values.shape[-1]
            return tf.zeros(tf.stack([tf.size(nodes), size]), self.values.dtype)
        return tf.gather(self.values, nodes)

    def prepared(self, cell: TreeCell, nodes: tf.Tensor) -> Any:
        """What the cell prepares of these inner nodes."""
        if self.on_leaves:
            return cell.prepare_without(self.values.shape[-1], tf.size(nodes))
        return cell.prepare(self.of_inner(nodes))
