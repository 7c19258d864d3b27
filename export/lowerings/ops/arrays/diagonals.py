"""Diagonals of matrices, taken, set and put: one gather by computed places.

    y[i, j] = diagonals[k1 - d, min(i, j) + shift(d)]    d = j - i in [k0, k1]

where `shift` moves diagonals that are shorter than the longest to the side they are aligned to.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import rewrites


@rewrites("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3")
def put_diagonals(
    op: tf.Operation,
    diagonal: tf.Tensor,
    k: Any = 0,
    rows: Any = -1,
    columns: Any = -1,
    padding: Any = 0,
) -> tf.Tensor:
    """A matrix of diagonals, and padding beside them."""
    lowest, highest = _bounds(op, k)
    longest = tf.shape(diagonal)[-1]
    least = longest - min(highest, 0), longest + max(lowest, 0)
    given = [int(tf.get_static_value(size)) for size in (rows, columns)]
    if given == [-1, -1]:
        sizes = [tf.maximum(*least)] * 2
    else:
        sizes = [tf.constant(s) if s >= 0 else low for s, low in zip(given, least, strict=True)]
    padding = tf.cast(padding, diagonal.dtype)
    return _put(op, diagonal, (lowest, highest), sizes, padding)


@rewrites("MatrixSetDiag", "MatrixSetDiagV2", "MatrixSetDiagV3")
def set_diagonals(op: tf.Operation, matrix: tf.Tensor, diagonal: tf.Tensor, k: Any = 0) -> Any:
    """A matrix with other diagonals."""
    sizes = tf.shape(matrix)
    return _put(op, diagonal, _bounds(op, k), [sizes[-2], sizes[-1]], matrix)


@rewrites("MatrixDiagPart", "MatrixDiagPartV2", "MatrixDiagPartV3")
def take_diagonals(op: tf.Operation, matrix: tf.Tensor, k: Any = 0, padding: Any = 0) -> tf.Tensor:
    """The diagonals of a matrix, the highest first, padded to the longest."""
    lowest, highest = _bounds(op, k)
    shape = tf.shape(matrix)
    rows, columns = shape[-2], shape[-1]
    longest = tf.minimum(rows + min(highest, 0), columns - max(lowest, 0))
    d = tf.range(highest, lowest - 1, -1)[:, None]
    n = tf.range(longest)[None] - _shift(op, d, rows, columns, longest)
    i, j = n - tf.minimum(d, 0), n + tf.maximum(d, 0)
    inside = (n >= 0) & (i < rows) & (j < columns)
    places = tf.where(inside, i * columns + j, 0)
    flat = tf.reshape(matrix, tf.concat([shape[:-2], [rows * columns]], 0))
    taken = tf.gather(flat, places, axis=-1)
    taken = tf.where(inside, taken, tf.cast(padding, matrix.dtype))
    return taken[..., 0, :] if lowest == highest else taken


def _put(op: tf.Operation, diagonal: Any, bounds: Any, sizes: Any, beside: Any) -> tf.Tensor:
    lowest, highest = bounds
    rows, columns = sizes
    shape = tf.shape(diagonal)
    longest = shape[-1]
    i, j = tf.range(rows)[:, None], tf.range(columns)[None]
    d = j - i
    inside = (d >= lowest) & (d <= highest)
    n = tf.minimum(i, j) + _shift(op, d, rows, columns, longest)
    if lowest == highest:
        flat, places = diagonal, n
    else:
        flat = tf.reshape(diagonal, tf.concat([shape[:-2], [shape[-2] * longest]], 0))
        places = (highest - d) * longest + n
    taken = tf.gather(flat, tf.where(inside, places, 0), axis=-1)
    return tf.where(inside, taken, beside)


def _shift(op: tf.Operation, d: Any, rows: Any, columns: Any, longest: Any) -> tf.Tensor:
    """How far a diagonal stands from the left."""
    align = op.get_attr("align").decode() if op.type.endswith("V3") else "LEFT_LEFT"
    above, below = align.split("_")
    behind = longest - tf.minimum(rows + tf.minimum(d, 0), columns - tf.maximum(d, 0))
    none = tf.zeros_like(behind)
    sides = [behind if side == "RIGHT" else none for side in (above, below)]
    return tf.where(d >= 0, *sides)


def _bounds(op: tf.Operation, k: Any) -> tuple[int, int]:
    value = tf.get_static_value(k)
    if value is None:
        raise ExportError(
            f"node '{op.name}' takes diagonals whose number is computed; make k a constant"
        )
    numbers = value.reshape(-1).tolist()
    return numbers[0], numbers[-1]


def _of_higher_rank(op: tf.Operation, given: Any) -> bool:
    return op.inputs[0].shape.rank != 2


@rewrites("MatrixBandPart", when=_of_higher_rank)
def band_part(op: tf.Operation, matrix: tf.Tensor, lower: Any, upper: Any) -> tf.Tensor:
    """The diagonals from `lower` below to `upper` above; all of a side where negative."""
    sizes = tf.shape(matrix, lower.dtype)
    i, j = tf.range(sizes[-2])[:, None], tf.range(sizes[-1])[None]
    inside = ((lower < 0) | (i - j <= lower)) & ((upper < 0) | (j - i <= upper))
    return tf.where(inside, matrix, tf.zeros((), matrix.dtype))
