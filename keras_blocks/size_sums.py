"""Sums of sizes: lengths of rows, numbers of nodes, places.

They are marked in traced graphs, for an export sums other integers of 64 bits in parts, so that no
digit is lost, and these need none of it.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

OF_SIZES = "of_sizes"
"""What the name of such a sum begins with, behind its scopes."""


def sum_of_sizes(sizes: tf.Tensor, **options: Any) -> tf.Tensor:
    """`tf.reduce_sum` of numbers that are small whatever the input.

    Args:
        sizes: integers.
        **options: those of `tf.reduce_sum`.

    Example:

    >>> import tensorflow as tf
    >>> int(sum_of_sizes(tf.constant([3, 0, 2])))
    5
    """
    return tf.reduce_sum(sizes, name=OF_SIZES, **options)
