"""The order in which a file goes through the nodes of a batch of trees.

A small batch feels every operation of it, a large one every pass over its nodes. So there is one
sort, behind which the children of a node stand side by side; the rest is counted from there.
"""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.export.tracing.stand_ins import onnx_node
from keras_blocks.mechanisms.trees.kernels import active_kernels
from keras_blocks.mechanisms.trees.schedule import Schedule


class LevelOrder:
    """Every node has a seat: the deepest level comes first, on each level inner nodes, then leaves.

    So the children of a level sit side by side, as do its own inner nodes, and its leaves. Inner
    nodes are counted in the order of their seats, leaves likewise. As children, nodes stand sorted
    by level, the deepest first, then by their parent, then as given; roots are the children of one
    more node.

    Args:
        plan: the nodes; the order that it has for them is not used.

    Attributes:
        children: (nodes,) the nodes as children.
        owner: (nodes,) the parent of each child among all inner nodes; roots have one behind all.
        first: (inner nodes + 1,) where the children of each begin; the last are the roots.
        within: (nodes,) the seat of each child on its own level.
        seat: (nodes,) its seat.
        parent: (nodes,) its parent among the inner nodes of the parent's level.
        inner: (inner nodes + 1,) the inner nodes, and one that is none.
        levels: () how many levels there are.
        leaves: (leaves,) the leaves in the order of their seats.
        spans: (6, levels) where on each level, the deepest first: inner nodes begin and end among
            all of them, leaves likewise, the seats of the level below begin and those of its own.
    """

    def __init__(self, plan: Schedule):
        at, nodes = active_kernels().at, plan.nodes
        self.children = active_kernels().order(plan.parent - plan.level * (nodes + 1))
        parent = at(plan.parent, self.children)
        begins, number = _groups(at(plan.level, self.children))
        self.first, self.owner = _groups(parent)
        self.inner = at(parent, self.first)
        self.levels = tf.size(begins, tf.int64)

        # The children on a level belong to the inner nodes of the next, which are as many groups.
        ends = tf.concat([begins, nodes], axis=0)[1:]
        groups = tf.concat([[0], at(self.owner, ends - 1) + 1], axis=0)
        inner_begins = tf.concat([[0], groups], axis=0)[:-2]
        inner_ends = groups[:-1]
        below = tf.concat([[0], begins], axis=0)[:-1]
        leaves = begins - inner_begins, ends - inner_ends
        spans = [inner_begins, inner_ends, *leaves, below, begins]
        self.spans = tf.reshape(tf.concat(spans, axis=0), [6, -1])

        # 0 for leaves, and 1 for the first inner node.
        inner = at(put(nodes + 1, self.inner, count(self.first) + 1), self.children)
        self.leaves = chosen(self.children, inner < 1)
        leaf = tf.cumsum(tf.cast(inner < 1, tf.int64))
        # So many stand before the inner nodes of a level, and so many less before its leaves.
        of_inner, of_leaf = at(inner_begins, number), at(begins - inner_ends, number)
        self.within = tf.where(inner > 0, inner - of_inner, leaf - of_leaf) - 1
        self.seat = at(begins, number) + self.within
        self.parent = self.owner - at(inner_ends, number)

    def by_seat(self, values: tf.Tensor) -> tf.Tensor:
        """What is said of children, in the order of their seats."""
        return put(tf.shape(values, tf.int64), self.seat, values)

    def by_node(self, values: tf.Tensor) -> tf.Tensor:
        """What is said of children, in the order of the nodes as given."""
        return put(tf.shape(values, tf.int64), self.children, values)


def _groups(values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Where equal values that stand side by side begin, and for each value the number of its group.

    No value is -1.
    """
    begins = values != tf.concat([[-1], values], axis=0)[:-1]
    return chosen(count(values), begins), tf.cumsum(tf.cast(begins, tf.int64)) - 1


def chosen(values: tf.Tensor, which: tf.Tensor) -> tf.Tensor:
    """The values for which this is true."""
    spec = tf.TensorSpec([None], values.dtype)
    return onnx_node("Compress", [values, which], [spec], axis=0)[0]


def count(values: tf.Tensor) -> tf.Tensor:
    """0, 1, 2 ..., as many as there are values."""
    return tf.range(tf.size(values, tf.int64))


def put(size: tf.Tensor, places: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """So many zeros, with these values in their places."""
    spec = tf.TensorSpec([None], values.dtype)
    return onnx_node("ScatterElements", [tf.zeros(size, values.dtype), places, values], [spec])[0]
