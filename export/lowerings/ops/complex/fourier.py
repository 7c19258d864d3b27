"""Fourier transforms by ONNX's DFT, which has the two parts along a last axis of 2."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.complex.pairs import rewrites_complex
from keras_blocks.export.lowerings.values import Pair
from keras_blocks.export.tracing.stand_ins import onnx_node, target_opset

OLDEST_OPSET = 17


def _transform(
    op: tf.Operation,
    z: tf.Tensor | Pair,
    length: tf.Tensor | None = None,
    one_sided: bool = False,
    inverse: bool = False,
) -> Pair:
    """The transform of the last axis, of as many numbers as `length` says."""
    if target_opset() < OLDEST_OPSET:
        raise ExportError(
            f"node '{op.name}' is a Fourier transform, which ONNX has since opset {OLDEST_OPSET}. "
            f"Choose opset_version={OLDEST_OPSET} or more (--opset)."
        )
    x = z[..., None] if isinstance(z, tf.Tensor) else tf.stack(list(z), -1)
    shape, static, dtype = tf.shape(x), x.shape, x.dtype
    if not _is_power_of_two(_size(static[-2], length)):
        # Of other lengths onnxruntime's loses digits: they come of a longer transform.
        x = tf.cast(x, "float64")
    if static.rank != 3:
        x = tf.reshape(x, tf.concat([[-1], shape[-2:]], 0))
        x.set_shape([None, *static[-2:]])
    spec = tf.TensorSpec([x.shape[0], None, 2], x.dtype)
    lengths = None if length is None else tf.cast(tf.reshape(length, []), "int64")
    sides: dict[str, Any] = {"onesided": int(one_sided), "inverse": int(inverse)}
    (y,) = onnx_node("DFT", [x, lengths], [spec], domain="", axis=1, **sides)
    if static.rank != 3:
        y = tf.reshape(y, tf.concat([shape[:-2], tf.shape(y)[1:]], 0))
    parts = tf.unstack(tf.cast(y, dtype), 2, axis=-1)
    count = x.shape[1]
    for part in parts:
        # As many as there were, unless it is cut, filled or halved.
        kept = length is None and not one_sided
        part.set_shape([*static[:-2], count if kept else None])
    return Pair(*parts)


def _is_power_of_two(size: int | None) -> bool:
    return size is not None and size > 0 and size & (size - 1) == 0


def _along(op: tf.Operation, z: Any, axis: int, **options: Any) -> Pair:
    """The transform of another axis, counted from behind."""
    if axis == -1:
        return _transform(op, z, **options)
    rank = (z if isinstance(z, tf.Tensor) else z.real).shape.rank
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]

    def turned(value: Any) -> Any:
        if isinstance(value, Pair):
            return Pair(*(tf.transpose(part, order) for part in value))
        return tf.transpose(value, order)

    return turned(_transform(op, turned(z), **options))


_AXES = {"": 1, "2D": 2, "3D": 3}


@rewrites_complex("FFT", "FFT2D", "FFT3D", "IFFT", "IFFT2D", "IFFT3D")
def transform(op: tf.Operation, z: Pair) -> Pair:
    """One axis after another."""
    inverse = op.type.startswith("I")
    for axis in range(_AXES[op.type.removeprefix("I")[3:]]):
        z = _along(op, z, -1 - axis, inverse=inverse)
    return z


@rewrites_complex("RFFT", "RFFT2D", "RFFT3D")
def transform_reals(op: tf.Operation, x: tf.Tensor, lengths: tf.Tensor) -> Pair:
    """Half of the last axis, which has all of it; the others in full."""
    count = _AXES[op.type[4:]]
    z = _along(op, x, -1, length=lengths[count - 1], one_sided=True)
    for axis in range(1, count):
        z = _along(op, z, -1 - axis, length=lengths[count - 1 - axis])
    return z


@rewrites_complex("IRFFT", "IRFFT2D", "IRFFT3D")
def transform_back(op: tf.Operation, z: Pair, lengths: tf.Tensor) -> tf.Tensor:
    """The other half of the last axis are the conjugates of the first, in reverse."""
    count = _AXES[op.type[5:]]
    for axis in range(1, count):
        z = _along(op, z, -1 - axis, length=lengths[count - 1 - axis], inverse=True)
    length = lengths[count - 1]
    half = length // 2 + 1
    real, imaginary = (_fit(part, half) for part in z)
    # Neither the constant nor the highest frequency of an even length stands twice.
    last = (length + 1) // 2
    mirrored = [tf.reverse(part[..., 1:last], [-1]) for part in (real, imaginary)]
    edge = tf.range(half)
    alone = tf.equal(edge, 0) | tf.equal(edge * 2, length)
    imaginary = tf.where(alone, tf.zeros_like(imaginary), imaginary)
    full = Pair(tf.concat([real, mirrored[0]], -1), tf.concat([imaginary, -mirrored[1]], -1))
    return _transform(op, full, inverse=True).real


def _fit(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The first of the last axis, with zeros behind if there are fewer."""
    cut = x[..., :size]
    missing = tf.maximum(size - tf.shape(x)[-1], 0)
    paddings = [[0, 0]] * (x.shape.rank - 1) + [[0, missing]]
    return tf.pad(cut, tf.stack([tf.stack(row) for row in paddings]))


def _size(given: int | None, length: tf.Tensor | None) -> int | None:
    """How many numbers are transformed, if it is known."""
    if length is None:
        return given
    value = tf.get_static_value(length)
    return None if value is None else int(value)
