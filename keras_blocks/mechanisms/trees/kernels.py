"""Operations of the passes over trees that have a better form in ONNX than TensorFlow's converted.

The layers compute with `TreeKernels`. An export puts its own in their place while it traces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.trees.levels import LevelWriter
from keras_blocks.mechanisms.trees.lstm_gates import product


class TreeKernels:
    """The operations in TensorFlow.

    Attributes:
        gates_apart: bool, whether each gate is a product of its own, over the features of its level
            beside what comes from the children. Then nothing is cut apart, each product can end in
            its nonlinearity, and the sums of all nodes need not pass through memory. Where every
            operation costs more, or a gradient is asked, few large products are the better form.
        features_first: bool, whether such products are made of the features of all nodes at once,
            and each level adds to them. For few nodes, where it is the weights that go through the
            cache on each level.
        climb: the class of the pass from the leaves to the roots, or None for `UpwardPass`.
    """

    gates_apart = False
    features_first = False
    climb: Any = None

    def writer(self, row: Any, dtype: Any) -> Any:
        """A `LevelWriter` of rows of this shape, or what has its methods."""
        return LevelWriter(row, dtype)

    def product(self, vectors: tf.Tensor, kernel: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
        """vectors @ kernel + added, where `added` has a row for each of the vectors, or one."""
        if added.shape.rank == 1:
            return tf.nn.bias_add(tf.matmul(vectors, kernel), added)
        return product(vectors, kernel, added)

    def summed(self, sums: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The sums of all inner nodes to which each level adds a product with this kernel."""
        return sums

    def add_product(self, sums: tf.Tensor, vectors: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """A level's part of such sums, and vectors @ kernel."""
        return product(vectors, kernel, sums)

    def piles(self) -> list[Any]:
        """Where a loop over levels puts what `of_level` gives in each round."""
        return []

    def of_level(self) -> list[tf.Tensor]:
        """What is to be kept of the level that was computed last."""
        return []

    def after_loop(self, kept: list[Any]) -> None:
        """Takes what the piles hold in the end."""

    def at(self, values: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """The values in these places; both have one axis."""
        return tf.gather(values, places)

    def order(self, keys: tf.Tensor) -> tf.Tensor:
        """int64, the order that sorts integers from the least; equal ones keep theirs."""
        return tf.math.top_k(-keys, k=tf.size(keys), index_type=tf.int64)[1]


_TENSORFLOW = TreeKernels()
_OPS: ContextVar[TreeKernels] = ContextVar("tree_ops", default=_TENSORFLOW)


def active_kernels() -> TreeKernels:
    """The operations to compute with."""
    return _OPS.get()


@contextmanager
def use_kernels(other: TreeKernels) -> Iterator[None]:
    """Within the context, trees are computed with other operations."""
    token = _OPS.set(other)
    try:
        yield
    finally:
        _OPS.reset(token)
