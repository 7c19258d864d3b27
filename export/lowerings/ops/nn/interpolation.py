"""Images resized between the nearest pixels, or to the nearest, at the very places of TensorFlow.

    y[o] = x[floor(s)] + (x[ceil(s)] - x[floor(s)]) (s - floor(s))      s = (o + 1/2) in / out - 1/2

ONNX's Resize divides by out / in, which is another float32: its places are off by the last digit,
and the pixels of a sharp image by 1e-4 of their size; of the nearest ones it may take others. Where
no rounding is in the ratio, it is left to do what it does three times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.export.lowerings.registry import exact_form, rewrites
from keras_blocks.export.tracing.stand_ins import as_written


def _rounds(op: tf.Operation, given: Any) -> bool:
    """Whether the ratio of the sizes is not a power of two, or not known to be one."""
    images, size = op.inputs
    wanted = tf.get_static_value(size)
    if wanted is not None:
        return not all(map(_is_exact_ratio, images.shape[1:3], wanted.tolist()))
    factors = _factors(size, images)
    return not factors or not all(_is_exact_ratio(1, factor) for factor in factors)


def _factors(size: tf.Tensor, images: tf.Tensor) -> list[int]:
    """By what the sizes of the images are multiplied (`UpSampling2D`); empty if it is not known."""
    if size.op.type != "Mul":
        return []
    for factor, own in (size.op.inputs, list(size.op.inputs)[::-1]):
        values, cut = tf.get_static_value(factor), own.op
        if values is not None and cut.type == "StridedSlice" and cut.inputs[0].op.type == "Shape":
            ends = [tf.get_static_value(x) for x in cut.inputs[1:]]
            same = cut.inputs[0].op.inputs[0] is images
            if same and [end.tolist() for end in ends if end is not None] == [[1], [3], [1]]:
                return values.reshape(-1).tolist()
    return []


def _is_exact_ratio(size: int | None, wanted: int) -> bool:
    if not size or not wanted:
        return False
    quotient, rest = divmod(max(size, wanted), min(size, wanted))
    return rest == 0 and quotient & (quotient - 1) == 0


@exact_form("ResizeBilinear")
@rewrites("ResizeBilinear", when=_rounds)
def resize_bilinear(op: tf.Operation, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """One axis after the other, first that which leaves less to do."""
    pixels = images if images.dtype == tf.float64 else tf.cast(images, "float32")
    for axis in _order(images, size):
        place, last = _places(op, images, size, axis)
        place, last = tf.cast(place, pixels.dtype), tf.cast(last, pixels.dtype)
        below = tf.floor(place)
        part = tf.reshape(place - below, [-1] + [1] * (3 - axis))
        first, second = (
            tf.gather(pixels, tf.cast(tf.clip_by_value(at, 0, last), "int32"), axis=axis)
            for at in (below, tf.math.ceil(place))
        )
        pixels = first + (second - first) * part
    return pixels


@rewrites("ResizeNearestNeighbor", when=_rounds)
def resize_to_nearest(op: tf.Operation, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The pixel that a place falls into; about the corners the nearer, of halves the second."""
    pixels = images
    for axis in _order(images, size):
        place, last = _places(op, images, size, axis)
        whole = tf.floor(place + 0.5 if op.get_attr("align_corners") else place)
        at = tf.cast(tf.clip_by_value(whole, 0, last), "int32")
        pixels = tf.gather(pixels, at, axis=axis)
    return pixels


def _order(images: tf.Tensor, size: tf.Tensor) -> Sequence[int]:
    wanted, rows = tf.get_static_value(size), images.shape[1]
    return (2, 1) if wanted is not None and rows is not None and rows < wanted[0] else (1, 2)


def _places(
    op: tf.Operation, images: tf.Tensor, size: tf.Tensor, axis: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the output pixels lie among the input's, in the float32 of TensorFlow's kernels, and
    the last place of the input."""
    wanted, count = tf.get_static_value(size), images.shape[axis]
    if images.dtype == tf.float64:
        sizes = [tf.cast(n, "float64") for n in (tf.shape(images)[axis], size[axis - 1])]
        steps = tf.cast(tf.range(size[axis - 1]), "float64")
        ratio, corners = sizes[0] / sizes[1], (sizes[0] - 1) / tf.maximum(sizes[1] - 1, 1)
    elif wanted is None or count is None:
        sizes = [tf.cast(n, "float32") for n in (tf.shape(images)[axis], size[axis - 1])]
        steps = tf.cast(tf.range(size[axis - 1]), "float32")
        ratio = as_written("Div", *sizes)
        corners = as_written("Div", sizes[0] - 1, tf.maximum(sizes[1] - 1, 1))
    else:
        # Computed here: what folds constants would put the sum into another order.
        sizes = [np.float32(count), np.float32(wanted[axis - 1])]
        steps = np.arange(wanted[axis - 1], dtype="float32")
        ratio = sizes[0] / sizes[1]
        corners = (sizes[0] - 1) / max(sizes[1] - 1, np.float32(1))
    if op.get_attr("align_corners"):
        places = steps * corners
    elif not op.get_attr("half_pixel_centers"):
        places = steps * ratio
    else:
        half = np.float32(0.5) if isinstance(steps, np.ndarray) else tf.constant(0.5, steps.dtype)
        places = (steps + half) * ratio
        if op.type == "ResizeBilinear":
            places -= half
    return tf.convert_to_tensor(places), tf.convert_to_tensor(sizes[0] - 1)


@rewrites("ResizeArea")
def resize_by_area(op: tf.Operation, images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The mean over the part of the image that an output pixel covers."""
    pixels = tf.cast(images, "float32")
    for axis in (1, 2):
        count, wanted = tf.shape(images)[axis], size[axis - 1]
        old, new = tf.cast(count, "float32"), tf.cast(wanted, "float32")
        step = (old - 1) / (new - 1) if op.get_attr("align_corners") else old / new
        start = (tf.cast(tf.range(wanted), "float32") * step)[:, None]
        pixel = tf.cast(tf.range(count), "float32")[None]
        covered = tf.minimum(pixel + 1, start + step) - tf.maximum(pixel, start)
        weights = tf.maximum(covered, 0) / step
        pixels = tf.einsum(("oh,bhwc->bowc", "ow,bhwc->bhoc")[axis - 1], weights, pixels)
    return pixels
