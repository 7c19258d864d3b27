"""Arithmetic of complex numbers, each as a pair of reals.

What only moves numbers, or is linear in all of them, is done to both parts alike. The rest is by
the formulas below.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import rewrite_of_reals, rewrites
from keras_blocks.export.lowerings.values import Pair, both
from keras_blocks.export.tracing.op_copies import copy_op

_REALS = {tf.complex64: tf.float32, tf.complex128: tf.float64}
_TYPES = {c.as_datatype_enum: r.as_datatype_enum for c, r in _REALS.items()}
# fmt: off
_LINEAR = (
    "Add", "AddN", "AddV2", "BatchToSpaceND", "BroadcastTo", "ConcatV2", "Cumsum", "EnsureShape",
    "ExpandDims", "Fill", "GatherNd", "GatherV2", "Identity", "MatrixBandPart", "MatrixDiagPartV3",
    "MatrixDiagV3", "Mean", "MirrorPad", "Neg", "Pack", "Pad", "PadV2", "Reshape", "ReverseV2",
    "Roll", "ScatterNd", "SelectV2", "Slice", "SpaceToBatchND", "Split", "SplitV", "Squeeze",
    "StopGradient", "StridedSlice", "Sub", "Sum", "TensorScatterAdd", "TensorScatterUpdate", "Tile",
    "Transpose", "Unpack", "UnsortedSegmentSum", "ZerosLike",
)
_SHAPES = ("Rank", "Shape", "Size")
# fmt: on


def real_type(dtype: tf.DType) -> tf.DType:
    """The element type of both parts."""
    return _REALS[tf.as_dtype(dtype)]


def _is_complex(op: tf.Operation, given: Any) -> bool:
    return any(tensor.dtype.is_complex for tensor in (*op.inputs, *op.outputs))


def rewrites_complex(*op_types: str) -> Any:
    """Registers a rewrite for these ops where they take or give complex numbers."""
    return rewrites(*op_types, when=_is_complex)


@rewrites_complex(*_LINEAR)
def each_part(op: tf.Operation, *given: Any) -> list[Any]:
    """The same of the real and of the imaginary parts."""
    parts = [_copied(op, both(given, part)) for part in (0, 1)]
    return [Pair(*values) for values in zip(*parts, strict=True)]


def _copied(op: tf.Operation, given: list[Any]) -> list[Any]:
    """What the operation gives of reals, rewritten in its turn where it has to be."""
    rewrite = rewrite_of_reals(op)
    if rewrite is None:
        return copy_op(op, given, _TYPES)
    results = rewrite(op, *given)
    return results if isinstance(results, list) else [results]


@rewrites_complex(*_SHAPES)
def shape_of(op: tf.Operation, z: Pair) -> list[Any]:
    """The shape is that of either part."""
    return copy_op(op, [z.real], _TYPES)


@rewrites_complex("Const")
def constant(op: tf.Operation) -> Pair:
    """Both parts of what is known."""
    value = tf.make_ndarray(op.get_attr("value"))
    return Pair(tf.constant(value.real), tf.constant(value.imag))


@rewrites_complex("Complex")
def make(op: tf.Operation, real: tf.Tensor, imaginary: tf.Tensor) -> Pair:
    """A pair of one shape."""
    none = tf.zeros((), real.dtype)
    shape = op.outputs[0].shape
    if real.shape == imaginary.shape and shape.is_fully_defined():
        return Pair(real, imaginary)
    return Pair(real + none * imaginary, imaginary + none * real)


@rewrites_complex("Real")
def real(op: tf.Operation, z: Pair) -> tf.Tensor:
    """The first."""
    return tf.identity(z.real)


@rewrites_complex("Imag")
def imaginary(op: tf.Operation, z: Pair) -> tf.Tensor:
    """The second."""
    return tf.identity(z.imaginary)


@rewrites_complex("ComplexAbs")
def magnitude(op: tf.Operation, z: Pair) -> tf.Tensor:
    """sqrt(x^2 + y^2)"""
    return tf.sqrt(_squared(z))


def _squared(z: Pair) -> tf.Tensor:
    return z.real * z.real + z.imaginary * z.imaginary


@rewrites_complex("Angle")
def angle(op: tf.Operation, z: Pair) -> tf.Tensor:
    """atan2(y, x)"""
    return tf.atan2(z.imaginary, z.real)


@rewrites_complex("Conj")
def conjugate(op: tf.Operation, z: Pair) -> Pair:
    """x - iy"""
    return Pair(z.real, -z.imaginary)


@rewrites_complex("ConjugateTranspose")
def conjugate_transpose(op: tf.Operation, z: Pair, order: tf.Tensor) -> Pair:
    """The conjugates with other axes."""
    return Pair(tf.transpose(z.real, order), -tf.transpose(z.imaginary, order))


@rewrites_complex("Cast")
def cast(op: tf.Operation, given: Any) -> Any:
    """To a real number its real part, of a real number one without an imaginary part."""
    target = op.outputs[0].dtype
    if not target.is_complex:
        return tf.cast(given.real, target)
    dtype = real_type(target)
    if isinstance(given, Pair):
        return Pair(*(tf.cast(part, dtype) for part in given))
    value = tf.cast(given, dtype)
    return Pair(value, tf.zeros_like(value))


@rewrites_complex("Mul", "MulNoNan")
def multiply(op: tf.Operation, a: Pair, b: Pair) -> Pair:
    """(ac - bd) + i (ad + bc)"""
    return Pair(
        a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real
    )


@rewrites_complex("Square")
def square(op: tf.Operation, z: Pair) -> Pair:
    """z z"""
    return multiply(op, z, z)


@rewrites_complex("RealDiv", "Div", "DivNoNan")
def divide(op: tf.Operation, a: Pair, b: Pair) -> Pair:
    """a conj(b) / |b|^2"""
    top, bottom = multiply(op, a, conjugate(op, b)), _squared(b)
    by = tf.math.divide_no_nan if op.type == "DivNoNan" else tf.divide
    return Pair(by(top.real, bottom), by(top.imaginary, bottom))


@rewrites_complex("Reciprocal", "Inv")
def reciprocal(op: tf.Operation, z: Pair) -> Pair:
    """conj(z) / |z|^2"""
    bottom = _squared(z)
    return Pair(z.real / bottom, -z.imaginary / bottom)


@rewrites_complex("Exp")
def exponential(op: tf.Operation, z: Pair) -> Pair:
    """exp(x) (cos y + i sin y)"""
    size = tf.exp(z.real)
    return Pair(size * tf.cos(z.imaginary), size * tf.sin(z.imaginary))


@rewrites_complex("Log")
def logarithm(op: tf.Operation, z: Pair) -> Pair:
    """log |z| + i angle(z)"""
    return Pair(0.5 * tf.math.log(_squared(z)), tf.atan2(z.imaginary, z.real))


@rewrites_complex("Sqrt")
def root(op: tf.Operation, z: Pair) -> Pair:
    """sqrt((|z| + x) / 2) + i sign(y) sqrt((|z| - x) / 2)"""
    size = tf.sqrt(_squared(z))
    below = tf.where(z.imaginary < 0, -tf.ones_like(size), tf.ones_like(size))
    return Pair(
        tf.sqrt(tf.maximum(size + z.real, 0) / 2),
        below * tf.sqrt(tf.maximum(size - z.real, 0) / 2),
    )


@rewrites_complex("OnesLike")
def ones_like(op: tf.Operation, z: Pair) -> Pair:
    """1 + 0i"""
    return Pair(tf.ones_like(z.real), tf.zeros_like(z.real))


@rewrites_complex("Equal", "NotEqual")
def compare(op: tf.Operation, a: Pair, b: Pair) -> tf.Tensor:
    """Equal where both parts are."""
    same = tf.equal(a.real, b.real) & tf.equal(a.imaginary, b.imaginary)
    return same if op.type == "Equal" else tf.logical_not(same)


@rewrites_complex("Prod")
def product(op: tf.Operation, z: Pair, axes: tf.Tensor) -> Pair:
    """Refused: its factors would have to be multiplied one after another."""
    raise ExportError(
        f"node '{op.name}' multiplies complex numbers along an axis, which has no ONNX form here. "
        "Add their logarithms instead."
    )


@rewrites_complex("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
def matrix_product(op: tf.Operation, a: Pair, b: Pair) -> Pair:
    """Four products of reals; adjoints are transposes of conjugates."""
    if op.type.startswith("Batch"):
        a, b = (
            conjugate(op, z) if op.get_attr(name) else z for z, name in ((a, "adj_x"), (b, "adj_y"))
        )

    def times(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return copy_op(op, [x, y], _TYPES)[0]

    return Pair(
        times(a.real, b.real) - times(a.imaginary, b.imaginary),
        times(a.real, b.imaginary) + times(a.imaginary, b.real),
    )
