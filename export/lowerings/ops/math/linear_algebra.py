"""Linear algebra of small matrices, by the textbook's loops over the columns.

Each round is a few operations on whole matrices, so that it runs over any batch; in float32 the
results are as exact as those of TensorFlow, within the condition of the matrix. Large matrices are
refused: n rounds of n x n numbers are no match for a library's blocks.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import rewrites

LARGEST = 128


def _size(op: tf.Operation, a: tf.Tensor, axis: int = -1) -> int:
    """The rows or columns of the matrices, which must be known and few."""
    size = a.shape[axis]
    if size is None or size > LARGEST:
        raise ExportError(
            f"node '{op.name}' ({op.type}) is of matrices with {size or 'an unknown number of'} "
            f"rows; those of up to {LARGEST} become a loop in ONNX, which has no such operation. "
            "Compute it before the model, or give the axis a fixed size."
        )
    return size


def _row(a: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    return tf.gather(a, k[None], axis=-2)


def _column(a: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    return tf.gather(a, k[None], axis=-1)


def _eliminate(op: tf.Operation, a: tf.Tensor, b: tf.Tensor | None) -> tuple[Any, Any, Any]:
    """Gauss and Jordan with the largest pivots: a^-1 b, the pivots, and how the rows swapped."""
    n = _size(op, a)
    both = a if b is None else tf.concat([a, b], -1)
    places = tf.range(n)[:, None]

    def step(k: Any, m: Any, pivots: Any, sign: Any) -> tuple[Any, ...]:
        sizes = tf.where(places >= k, tf.abs(_column(m, k)), -tf.ones((), a.dtype))
        largest = tf.argmax(sizes, axis=-2, output_type="int32")[..., None]
        swapped = tf.equal(places, largest)
        pivot_row = tf.reduce_sum(tf.where(swapped, m, tf.zeros((), a.dtype)), -2, keepdims=True)
        m = tf.where(tf.equal(places, k), pivot_row, tf.where(swapped, _row(m, k), m))
        sign = tf.where(tf.equal(largest[..., 0, 0], k), sign, -sign)
        pivot = _column(pivot_row, k)
        row = pivot_row / pivot
        others = m - _column(m, k) * row
        # The rows above need it for the inverse alone.
        below = places > k if b is None else tf.not_equal(places, k)
        m = tf.where(below, others, m) if b is None else tf.where(below, others, row)
        pivots = tf.where(tf.equal(tf.range(n), k), pivot[..., 0, :], pivots)
        return k + 1, m, pivots, sign

    ones = tf.ones_like(a[..., 0])
    state = [tf.constant(0), both, ones, ones[..., 0]]
    shapes = [x.shape for x in state]
    _, both, pivots, sign = tf.while_loop(lambda k, *_: k < n, step, state, shapes)
    return (None if b is None else both[..., n:]), pivots, sign


@rewrites("MatrixInverse")
def inverse(op: tf.Operation, a: tf.Tensor) -> tf.Tensor:
    """What gives the identity."""
    a = tf.linalg.matrix_transpose(a) if op.get_attr("adjoint") else a
    unit = tf.eye(_size(op, a), dtype=a.dtype) + tf.zeros_like(a)
    return _eliminate(op, a, unit)[0]


@rewrites("MatrixSolve")
def solve(op: tf.Operation, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """x with a x = b."""
    a = tf.linalg.matrix_transpose(a) if op.get_attr("adjoint") else a
    return _eliminate(op, a, b)[0]


@rewrites("MatrixTriangularSolve", "BatchMatrixTriangularSolve")
def solve_triangular(op: tf.Operation, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """x with a x = b, where one half of a is not read: no pivots, one unknown after another."""
    n = _size(op, a)
    lower = op.get_attr("lower")
    ends = [[n - 1, 0], [0, n - 1]][lower]
    i, j = tf.range(n)[:, None], tf.range(n)[None]
    a = tf.where(i >= j if lower else i <= j, a, tf.zeros((), a.dtype))
    if op.get_attr("adjoint"):
        a, ends = tf.linalg.matrix_transpose(a), ends[::-1]
    forwards = ends[0] == 0
    lead = tf.zeros_like(a[..., :1])
    b = b + lead[..., :1, :] if a.shape.rank > b.shape.rank else b

    def step(count: Any, x: Any) -> tuple[Any, Any]:
        k = count if forwards else n - 1 - count
        row = _row(x, k) / _column(_row(a, k), k)
        rest = x - _column(a, k) * row
        behind = i > k if forwards else i < k
        return count + 1, tf.where(tf.equal(i, k), row, tf.where(behind, rest, x))

    b = b + tf.zeros_like(tf.matmul(a, b))  # the batch of both
    state = [tf.constant(0), b]
    return tf.while_loop(lambda k, _: k < n, step, state, [x.shape for x in state])[1]


@rewrites("MatrixDeterminant")
def determinant(op: tf.Operation, a: tf.Tensor) -> tf.Tensor:
    """The product of the pivots."""
    _, pivots, sign = _eliminate(op, a, None)
    return sign * tf.reduce_prod(_zero_where_singular(pivots), -1)


@rewrites("LogMatrixDeterminant")
def log_determinant(op: tf.Operation, a: tf.Tensor) -> list[tf.Tensor]:
    """Its sign, and the logarithm of its magnitude."""
    _, pivots, sign = _eliminate(op, a, None)
    pivots = _zero_where_singular(pivots)
    return [
        sign * tf.reduce_prod(tf.sign(pivots), -1),
        tf.reduce_sum(tf.math.log(tf.abs(pivots)), -1),
    ]


def _zero_where_singular(pivots: tf.Tensor) -> tf.Tensor:
    """Behind a pivot of 0 the others are no numbers."""
    return tf.where(tf.math.is_nan(pivots), tf.zeros((), pivots.dtype), pivots)


@rewrites("Cholesky")
def cholesky(op: tf.Operation, a: tf.Tensor) -> tf.Tensor:
    """The lower triangle l with l l^T = a: a column, and what is left without it, at a time."""
    n = _size(op, a)
    places = tf.range(n)

    def step(k: Any, left: Any, lower: Any) -> tuple[Any, ...]:
        column = _column(left, k) / tf.sqrt(_column(_row(left, k), k))
        column = tf.where(places[:, None] >= k, column, tf.zeros((), a.dtype))
        lower = tf.where(tf.equal(places, k), column, lower)
        return k + 1, left - column * tf.linalg.matrix_transpose(column), lower

    state = [tf.constant(0), a, tf.zeros_like(a)]
    return tf.while_loop(lambda k, *_: k < n, step, state, [x.shape for x in state])[2]


@rewrites("Qr")
def qr(op: tf.Operation, a: tf.Tensor) -> list[tf.Tensor]:
    """Householder's reflections, each of which clears a column below the diagonal.

    h = 1 - t v v^T    v = x + sign(x0) |x| e0
    """
    rows, columns = _size(op, a, -2), _size(op, a)
    rounds = min(rows, columns)
    places = tf.range(rows)[:, None]
    unit = tf.eye(rows, dtype=a.dtype)
    q = unit + tf.zeros_like(tf.matmul(a, a, transpose_b=True))

    def step(k: Any, q: Any, r: Any) -> tuple[Any, ...]:
        x = tf.where(places >= k, _column(r, k), tf.zeros((), a.dtype))
        first = _row(x, k)
        tail = tf.reduce_sum(tf.where(places > k, x * x, tf.zeros((), a.dtype)), -2, keepdims=True)
        size = tf.sqrt(first * first + tail)
        v = x + tf.where(tf.equal(places, k), tf.where(first < 0, -size, size), 0)
        squared = tf.reduce_sum(v * v, -2, keepdims=True)
        # A column that is clear already is not turned.
        turned = (tail > 0) & (squared > 0)
        scale = tf.where(turned, 2 / tf.where(turned, squared, 1), 0)
        r = r - scale * v * tf.matmul(v, r, transpose_a=True)
        q = q - scale * tf.matmul(q, v) * tf.linalg.matrix_transpose(v)
        return k + 1, q, r

    state = [tf.constant(0), q, a]
    _, q, r = tf.while_loop(lambda k, *_: k < rounds, step, state, [x.shape for x in state])
    r = tf.where(places <= tf.range(columns)[None], r, tf.zeros((), a.dtype))
    if not op.get_attr("full_matrices"):
        q, r = q[..., :rounds], r[..., :rounds, :]
    return [q, r]


@rewrites("Svd", "SelfAdjointEigV2", "Eig", "Lu", "MatrixLogarithm", "MatrixSquareRoot")
def refuse_decomposition(op: tf.Operation, *given: Any) -> list[tf.Tensor]:
    """Says that there is none."""
    raise ExportError(
        f"node '{op.name}' is the decomposition {op.type} of a matrix, which ONNX has not. "
        "Compute it before the model; inverse, solve, Cholesky, QR and determinant of matrices of "
        f"up to {LARGEST} rows are exported."
    )
