"""Patches of images (and volumes), as one gather for each spatial axis."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites


@rewrites("ExtractImagePatches", "ExtractVolumePatches")
def extract_patches(op: tf.Operation, images: tf.Tensor) -> tf.Tensor:
    """The windows of every place, with their pixels and channels as one axis."""
    widths, strides = op.get_attr("ksizes")[1:-1], op.get_attr("strides")[1:-1]
    volumes = op.type == "ExtractVolumePatches"
    rates = [1] * len(widths) if volumes else op.get_attr("rates")[1:-1]
    same = op.get_attr("padding") == b"SAME"
    count = len(widths)
    patches, sizes = images, tf.shape(images)
    for n, (width, stride, rate) in enumerate(zip(widths, strides, rates, strict=True)):
        size, reach = sizes[n + 1], (width - 1) * rate + 1
        windows = (size + stride - 1) // stride if same else (size - reach) // stride + 1
        axis = 2 * n + 1
        if same:
            missing = tf.maximum((windows - 1) * stride + reach - size, 0)
            patches = _pad(patches, axis, missing // 2, missing - missing // 2)
        places = tf.range(windows)[:, None] * stride + tf.range(width)[None] * rate
        patches = tf.gather(patches, places, axis=axis)
    # (batch, rows, row of the window, columns, column of the window, channels)
    order = [0, *range(1, 2 * count, 2), *range(2, 2 * count + 1, 2), 2 * count + 1]
    ordered = tf.transpose(patches, order)
    shape = tf.shape(ordered)
    channels = images.shape[-1]
    depth = shape[-1] if channels is None else tf.constant(channels)
    for width in widths:
        depth = depth * width
    return tf.reshape(ordered, tf.concat([shape[: count + 1], [depth]], 0))


def _pad(x: tf.Tensor, axis: int, before: tf.Tensor, behind: tf.Tensor) -> tf.Tensor:
    ends: Sequence[tf.Tensor] = [before, behind]
    rows = [ends if a == axis else [0, 0] for a in range(x.shape.rank)]
    return tf.pad(x, tf.stack([tf.stack(row) for row in rows]))
