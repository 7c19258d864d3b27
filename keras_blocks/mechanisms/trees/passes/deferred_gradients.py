"""Products of the levels whose kernel gets its gradient once, after all levels.

TensorFlow's gradient of a loop makes the gradient of a kernel anew in each round, and adds it to
what the rounds before gave: a whole kernel is written and read for a few rows of nodes. But each
level only adds its product to its part of sums that were made for all nodes before the loop, so the
gradient of these sums holds what reached every product, and one product of all vectors with it is
the gradient of the kernel.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.mechanisms.trees.kernels import TreeKernels
from keras_blocks.mechanisms.trees.levels import LevelWriter, RowRange
from keras_blocks.mechanisms.trees.schedule import Schedule, inverse


@tf.custom_gradient
def in_order(rows: tf.Tensor, order: tf.Tensor) -> Any:
    """The rows in this order of all of them: no gradients to add up, as `tf.gather` must."""

    def gradient(upstream: tf.Tensor) -> Any:
        return tf.gather(upstream, inverse(order)), None

    return tf.gather(rows, order), gradient


class DeferredGradients(TreeKernels):
    """The operations of one climb that a gradient will be asked of.

    Args:
        plan: the order of the nodes.
    """

    def __init__(self, plan: Schedule):
        self.plan = plan
        self._products: list[_Product] = []
        self._of_level: list[tf.Tensor] = []

    def summed(self, sums: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Notes the kernel, and leads the gradient of the sums to it."""
        product = _Product(kernel, self.plan)
        self._products.append(product)
        return product.joined(sums, kernel)

    def add_product(self, sums: tf.Tensor, vectors: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The sums of a level and its product, in the order in which the sums were noted."""
        product = self._products[len(self._of_level)]
        self._of_level.append(vectors)
        return product.added_to(sums, vectors)

    def piles(self) -> list[LevelWriter]:
        """Where the vectors of all levels are put."""
        return [product.writer for product in self._products]

    def of_level(self) -> list[tf.Tensor]:
        """The vectors of the level that was computed last, and forgets them."""
        vectors, self._of_level = self._of_level, []
        return vectors

    def after_loop(self, kept: list[Any]) -> None:
        """Takes what the piles hold in the end."""
        for product, vectors in zip(self._products, kept, strict=True):
            product.kept = vectors


class _Product:
    """One product of every level."""

    def __init__(self, kernel: tf.Tensor, plan: Schedule):
        self.kernel = kernel
        self.plan = plan
        self.writer = LevelWriter(kernel.shape[:1], kernel.dtype)
        self.kept: Any = None

    def joined(self, sums: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """The sums, whose gradient gives the kernel its own."""

        @tf.custom_gradient
        def join(sums: tf.Tensor, kernel: tf.Tensor) -> Any:
            return tf.identity(sums), lambda upstream: (upstream, self._of_kernel(upstream))

        return join(sums, kernel)

    def added_to(self, sums: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """The sums and vectors @ kernel, without a gradient for the kernel."""

        @tf.custom_gradient
        def add(sums: tf.Tensor, vectors: tf.Tensor) -> Any:
            def gradient(upstream: tf.Tensor) -> Any:
                # Not cut off from the kernel: a gradient of the gradient needs it.
                return upstream, tf.matmul(upstream, self.kernel, transpose_b=True)

            return tf.matmul(vectors, tf.stop_gradient(self.kernel)) + sums, gradient

        return add(sums, vectors)

    def _of_kernel(self, upstream: tf.Tensor) -> tf.Tensor:
        inner = RowRange(tf.zeros_like(self.plan.inner), self.plan.inner)
        # The deepest level was put first.
        places = tf.gather(self.plan.upward(), inner.of(self.plan.order))
        vectors = tf.gather(self.writer.rows(self.kept), places)
        return tf.matmul(vectors, inner.of(upstream), transpose_a=True)
