"""Batches of trees of like size, for `trees.bucket_by_nodes`."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_OWNER = "bucket_by_nodes"


class Buckets:
    """Buckets of trees by their number of nodes, each a quarter wider than the one before.

    So no tree of a batch is much larger than another, and a batch is never much emptier than the
    fullest.

    Args:
        nodes_per_batch: int, the most nodes of a batch of several trees.
    """

    def __init__(self, nodes_per_batch: int):
        whole = isinstance(nodes_per_batch, int) and not isinstance(nodes_per_batch, bool)
        if not whole or nodes_per_batch < 1:
            raise ValueError(
                f"{_OWNER}: `nodes_per_batch` must be a positive integer, the most nodes of a "
                f"batch. Received: {nodes_per_batch!r}"
            )
        self.largest = [1]
        while self.largest[-1] < nodes_per_batch:
            size = self.largest[-1]
            self.largest.append(min(size + max(size // 4, 1), nodes_per_batch))
        # Trees with more nodes than a batch may have are batches of their own.
        self.trees = [nodes_per_batch // size for size in self.largest] + [1]

    def batched(self, dataset: tf.data.Dataset, drop_remainder: bool) -> tf.data.Dataset:
        """The trees of the dataset in batches."""
        parts = _parts_with_nodes(dataset.element_spec)
        batch_sizes = tf.constant(self.trees, tf.int64)

        def bucket(*element: Any) -> tf.Tensor:
            flat = tf.nest.flatten(element, expand_composites=True)
            nodes = tf.reduce_max(tf.stack([tf.shape(flat[part])[0] for part in parts]))
            (place,) = tf.unstack(tf.searchsorted(self.largest, nodes[tf.newaxis]))
            return tf.cast(place, tf.int64)

        return dataset.group_by_window(
            bucket,
            lambda key, trees: trees.ragged_batch(tf.gather(batch_sizes, key), drop_remainder),
            window_size_func=lambda key: tf.gather(batch_sizes, key),
        )


def _parts_with_nodes(spec: Any) -> list[int]:
    """Which tensors of an element have as many rows as the tree has nodes."""
    specs = tf.nest.flatten(spec)
    if any(getattr(part, "ragged_rank", 0) for part in specs):
        raise ValueError(
            f"{_OWNER}: the elements of the dataset must be single trees, and these hold ragged "
            f"tensors, as batches do. Received: elements of {spec}. Batch nothing before, or call "
            f"dataset.unbatch() first."
        )
    parts = [i for i, part in enumerate(specs) if part.shape.rank and part.shape[0] is None]
    if not parts:
        raise ValueError(
            f"{_OWNER}: no tensor of the dataset's elements has a first axis of unknown size, "
            f"which would be that of the nodes. Received: elements of {spec}. Expected parents of "
            f"shape (None,); for trees of one size dataset.batch is enough."
        )
    return parts
