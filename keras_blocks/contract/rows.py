"""Rows of a ragged tensor, joined and split."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from itertools import chain
from typing import Any

import numpy as np

from keras_blocks.contract import ROW_SPLITS_DTYPE, FlatTensor, TensorSpec
from keras_blocks.contract.validation import check_shape
from keras_blocks.contract.values import refuse, to_array


def join_rows(spec: TensorSpec, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    """The flat values and the row splits of a list of rows.

    Example:
        >>> spec = TensorSpec("tokens", "int32", ("tokens.values",), ragged=True)
        >>> values, row_splits = join_rows(spec, [[4, 7, 7], [], [9]])
        >>> values.tolist(), row_splits.tolist()
        ([4, 7, 7, 9], [0, 3, 3, 4])
    """
    values = FlatTensor(spec.name, spec.dtype, spec.shape)
    if not isinstance(rows, list | tuple | np.ndarray):
        raise refuse(spec.name, f"a list of rows expected, got {type(rows).__name__}")
    for index, row in enumerate(rows):
        if not isinstance(row, list | tuple | np.ndarray):
            raise refuse(spec.name, f"row {index} is {row!r:.40}, a list of steps expected")
    if any(isinstance(row, np.ndarray) for row in rows):
        return _join_arrays(values, rows)
    # All steps at once: a request may hold millions of rows.
    steps = to_array(list(chain.from_iterable(rows)), values)
    check_shape(values, steps.shape)
    return steps, _row_splits(rows)


def _join_arrays(values: FlatTensor, rows: Any) -> tuple[np.ndarray, np.ndarray]:
    arrays = [to_array(row, values) for row in rows]
    for array in arrays:
        check_shape(values, array.shape)
    full = [array for array in arrays if len(array)] or arrays[:1]
    if len({array.shape[1:] for array in full}) > 1:
        raise refuse(values.name, "its rows have steps of different shapes")
    return np.concatenate(full), _row_splits(arrays)


def _row_splits(rows: Iterable[Sized]) -> np.ndarray:
    return np.cumsum([0, *map(len, rows)], dtype=ROW_SPLITS_DTYPE)


def split_rows(values: np.ndarray, row_splits: np.ndarray) -> list[np.ndarray]:
    """The rows of a ragged tensor: the inverse of `join_rows`.

    Example:
        >>> [row.tolist() for row in split_rows(np.array([4, 7, 7, 9]), np.array([0, 3, 3, 4]))]
        [[4, 7, 7], [], [9]]
    """
    return np.split(values, row_splits[1:-1]) if len(row_splits) > 1 else []
