"""Axes that are shorter than the window that slides along them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf


def unless_too_short(
    x: tf.Tensor,
    widths: Sequence[int],
    slide: Callable[[], tf.Tensor],
    count: Callable[[tuple[tf.Tensor, ...]], Sequence[tf.Tensor]],
    features: int | None = None,
) -> tf.Tensor:
    """The result of windows over (batch, spatial..., features), without a step where none fits.

    TensorFlow fails on an axis that is shorter than its window, or gives its input back.

    Args:
        x: the input.
        widths: the steps that a window spans along each spatial axis.
        slide: gives the result where every axis is long enough.
        count: takes the lengths of the spatial axes and gives the steps of the result along each.
        features: int, the last axis of the result; None for that of the input.
    """
    # In 64 bits, as ONNX has its shapes.
    sizes = tf.shape(x, tf.int64)

    def nothing() -> tf.Tensor:
        last = sizes[-1] if features is None else features
        return tf.zeros([sizes[0], *count(tuple(tf.unstack(sizes[1:-1]))), last], x.dtype)

    fits = [sizes[axis] >= width for axis, width in enumerate(widths, start=1)]
    result = tf.cond(functools.reduce(tf.logical_and, fits), slide, nothing)
    last = x.shape[-1] if features is None else features
    result.set_shape((x.shape[0], *(None for _ in widths), last))
    return result
