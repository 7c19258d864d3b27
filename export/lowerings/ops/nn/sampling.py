"""Pixels taken from places between the pixels of images: crops, and projective transforms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import rewrites
from keras_blocks.export.tracing.stand_ins import as_written

Take = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def _flat_pixels(images: tf.Tensor, number: tf.Tensor) -> Take:
    """Gives the pixels at whole rows and columns of the images of these numbers.

    `number` broadcasts against the rows and columns.
    """
    shape = tf.shape(images)
    height, width = shape[1], shape[2]
    pixels = tf.reshape(images, [-1, images.shape[-1] or shape[3]])

    def take(y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        rows, columns = tf.cast(y, "int32"), tf.cast(x, "int32")
        return tf.gather(pixels, (number * height + rows) * width + columns)

    return take


@rewrites("CropAndResize")
def crop_and_resize(op: tf.Operation, images: Any, boxes: Any, number: Any, size: Any) -> Any:
    """The pixels of each box, at as many places as are wanted."""
    shape = tf.shape(images)
    outside = tf.constant(op.get_attr("extrapolation_value"), "float32")
    places = [
        _places(boxes[:, a], boxes[:, a + 2], tf.cast(shape[a + 1] - 1, "float32"), size[a])
        for a in (0, 1)
    ]
    y, x = places[0][:, :, None], places[1][:, None, :]
    last = [tf.cast(shape[a] - 1, "float32") for a in (1, 2)]
    inside = (y >= 0) & (y <= last[0]) & (x >= 0) & (x <= last[1])
    y, x = tf.clip_by_value(y, 0, last[0]), tf.clip_by_value(x, 0, last[1])
    take = _flat_pixels(tf.cast(images, "float32"), number[:, None, None])
    if op.get_attr("method") == b"nearest":
        # TensorFlow rounds halves away from zero.
        pixels = take(tf.floor(y + 0.5), tf.floor(x + 0.5))
    else:
        top, left = tf.floor(y), tf.floor(x)
        bottom, right = tf.math.ceil(y), tf.math.ceil(x)
        down, across = (y - top)[..., None], (x - left)[..., None]
        above = take(top, left) + (take(top, right) - take(top, left)) * across
        below = take(bottom, left) + (take(bottom, right) - take(bottom, left)) * across
        pixels = above + (below - above) * down
    return tf.where(inside[..., None], pixels, outside)


def _places(start: Any, end: Any, last: Any, count: Any) -> tf.Tensor:
    steps = tf.cast(tf.range(count), "float32")[None]
    between = tf.cast(tf.maximum(count - 1, 1), "float32")
    step = as_written("Div", (end - start) * last, between)
    several = as_written("Add", start[:, None] * last, as_written("Mul", step[:, None], steps))
    middle = 0.5 * (start + end)[:, None] * last + tf.zeros_like(steps)
    return tf.where(count > 1, several, middle)


@rewrites("ImageProjectiveTransformV2", "ImageProjectiveTransformV3")
def transform_images(
    op: tf.Operation, images: Any, transforms: Any, size: Any, fill: Any = 0.0
) -> tf.Tensor:
    """The pixel that a projective map of each output pixel points at."""
    mode = op.get_attr("fill_mode").decode()
    shape = tf.shape(images)
    sizes = [tf.cast(shape[a], "float32") for a in (1, 2)]
    a = [transforms[:, k, None, None] for k in range(8)]
    rows = tf.cast(tf.range(size[0]), "float32")[None, :, None]
    columns = tf.cast(tf.range(size[1]), "float32")[None, None, :]

    def line(first: int, last: tf.Tensor) -> tf.Tensor:
        across = as_written("Mul", a[first], columns)
        down = as_written("Mul", a[first + 1], rows)
        return as_written("Add", as_written("Add", across, down), last)

    bottom = line(6, tf.ones_like(a[0]))
    x, y = (as_written("Div", line(first, a[first + 2]), bottom) for first in (0, 3))
    x, y = _mapped(mode, x, sizes[1], op), _mapped(mode, y, sizes[0], op)
    fill = tf.cast(fill, "float32")
    take = _flat_pixels(tf.cast(images, "float32"), tf.range(shape[0])[:, None, None])

    def pixel(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        inside = (row >= 0) & (row < sizes[0]) & (column >= 0) & (column < sizes[1])
        at = take(tf.clip_by_value(row, 0, sizes[0] - 1), tf.clip_by_value(column, 0, sizes[1] - 1))
        return tf.where(inside[..., None], at, fill)

    if op.get_attr("interpolation") == b"NEAREST":
        result = pixel(_round(y), _round(x))
    else:
        top, left = tf.floor(y), tf.floor(x)
        down, across = (y - top)[..., None], (x - left)[..., None]
        above = (1 - across) * pixel(top, left) + across * pixel(top, left + 1)
        below = (1 - across) * pixel(top + 1, left) + across * pixel(top + 1, left + 1)
        result = (1 - down) * above + down * below
    return tf.cast(tf.where(tf.equal(bottom, 0)[..., None], fill, result), images.dtype)


def _round(x: tf.Tensor) -> tf.Tensor:
    """Halves away from zero, as TensorFlow does here."""
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


def _mapped(mode: str, x: tf.Tensor, size: tf.Tensor, op: tf.Operation) -> tf.Tensor:
    """Places beyond an image, led back into it as the fill mode says."""
    if mode == "CONSTANT":
        return x
    if mode == "NEAREST":
        inner = x
    elif mode == "REFLECT":
        period = 2 * size
        back = tf.where(x < 0, x + period * tf.floor(-x / period), x)
        back = tf.where((x < 0) & (back < -size), back + period, tf.where(x < 0, -back - 1, back))
        over = x - period * tf.floor(x / period)
        over = tf.where(over >= size, period - over - 1, over)
        inner = tf.where(x < 0, back, tf.where(x > size - 1, over, x))
    elif mode == "WRAP":
        less = size - 1
        before = x + size * (tf.floor(-x / tf.maximum(less, 1)) + 1)
        over = x - size * tf.floor(x / tf.maximum(less, 1))
        inner = tf.where(x < 0, before, tf.where(x > less, over, x))
        inner = tf.where(size <= 1, tf.zeros_like(x), inner)
    else:
        raise ExportError(f"node '{op.name}' fills what lies outside an image by '{mode}'")
    return tf.clip_by_value(inner, 0, size - 1)
