"""Arrays against the contract: nothing reaches onnxruntime that the contract does not allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from keras_blocks.contract import Contract, FlatTensor, TensorSpec
from keras_blocks.contract.describe import describe_inputs, show_shape
from keras_blocks.contract.dtypes import ANY_SHAPE, numpy_dtype
from keras_blocks.contract.tree_validation import check_trees
from keras_blocks.contract.values import refuse
from keras_blocks.errors import ContractError


class InputChecks:
    """The checks of one model's inputs.

    Args:
        contract: what the inputs must be.
    """

    def __init__(self, contract: Contract):
        self._contract = contract
        self._related = _related_dims(contract)
        self._bounds = [_bounds(spec) for spec in contract.inputs]

    def check(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Checks names, dtypes, shapes, bounds, row splits and trees.

        Raises:
            ContractError: names the input, what came and what was expected.
        """
        check_names(self._contract, inputs)
        for tensor in self._contract.flat_inputs():
            array = inputs[tensor.name]
            if array.dtype != numpy_dtype(tensor.dtype):
                raise refuse(tensor.name, f"dtype {tensor.dtype} expected, got {array.dtype}")
            check_shape(tensor, array.shape)
        self.check_values(inputs)

    def check_values(self, inputs: Mapping[str, np.ndarray]) -> None:
        """The same without names, dtypes and shapes: a decoded request has the right ones."""
        if self._related:
            _check_named_dims(self._related, inputs)
        for spec, bounds in zip(self._contract.inputs, self._bounds, strict=True):
            if bounds is not None:
                _check_bounds(spec, bounds, inputs[spec.name])
            if spec.ragged:
                _check_row_splits(spec, inputs[spec.name], inputs[spec.row_splits_name])
        check_trees(self._contract, inputs)


def check_names(contract: Contract, names: Iterable[str]) -> None:
    """Checks that exactly the inputs of the contract are there."""
    given = set(names)
    if given == contract.input_names:
        return
    expected = [tensor.name for tensor in contract.flat_inputs()]
    missing = next((name for name in expected if name not in given), None)
    unknown = min(given - set(expected), default=None)
    if missing is None and unknown is None:
        return
    # Both are told: one may be a misspelling of the other.
    faults = [] if missing is None else [f"input '{missing}' is missing"]
    faults += [] if unknown is None else [f"input '{unknown[:100]}' is unknown"]
    raise ContractError(
        f"{' and '.join(faults)}; the model takes {describe_inputs(contract)}", missing or unknown
    )


def check_shape(tensor: FlatTensor, shape: Sequence[int]) -> None:
    """Checks rank, fixed dims and least sizes, before there is any data."""
    if tensor.shape == ANY_SHAPE:
        return
    if len(shape) != len(tensor.shape):
        raise refuse(
            tensor.name,
            f"shape {show_shape(shape)} has {len(shape)} dims, "
            f"{show_shape(tensor.shape)} expected ({len(tensor.shape)} dims)",
        )
    for axis, (size, dim) in enumerate(zip(shape, tensor.shape, strict=True)):
        if size != dim and isinstance(dim, int):
            raise refuse(
                tensor.name,
                f"shape {show_shape(shape)} has {size} entries along axis {axis}, "
                f"{show_shape(tensor.shape)} expected",
            )
    short = tensor.short_axis(shape)
    if short is not None:
        raise refuse(
            tensor.name,
            f"axis {short} ('{tensor.shape[short]}') is {shape[short]}, at least "
            f"{tensor.least[short]} expected: the windows of the model are as long",
        )


class _NamedDim(NamedTuple):
    """One dim of one input: `base` and `extra` of 'batch+1' are 'batch' and 1."""

    tensor: str
    axis: int
    dim: str
    base: str
    extra: int


def _related_dims(contract: Contract) -> list[_NamedDim]:
    """The dims that can be wrong: named ones that occur more than once, or are one more."""
    dims = [
        _NamedDim(tensor.name, axis, dim, *split_dim(dim))
        for tensor in contract.flat_inputs()
        if tensor.shape != ANY_SHAPE
        for axis, dim in enumerate(tensor.shape)
        if isinstance(dim, str)
    ]
    counts = Counter(named.base for named in dims)
    return [named for named in dims if counts[named.base] > 1 or named.extra]


def _check_named_dims(dims: Sequence[_NamedDim], inputs: Mapping[str, np.ndarray]) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for tensor, axis, dim, base, extra in dims:
        size = inputs[tensor].shape[axis]
        if size < extra:
            raise refuse(tensor, f"axis {axis} ('{dim}') is {size}, at least {extra} expected")
        known, source = sizes.setdefault(base, (size - extra, tensor))
        if size - extra != known:
            raise refuse(
                tensor,
                f"axis {axis} ('{dim}') is {size}, but input '{source}' has {base} = {known}, "
                f"so {known + extra} expected",
            )


def split_dim(dim: str) -> tuple[str, int]:
    """'batch+1' is one more than 'batch'."""
    name, plus, extra = dim.replace(" ", "").rpartition("+")
    return (name, int(extra)) if plus and name and extra.isdecimal() else (dim, 0)


class _Bounds(NamedTuple):
    """What the elements of an input lie between.

    Args:
        low, high: both are allowed.
        unsigned: for integers from 0 on, their type without a sign; or None. Read as such, what is
            negative is larger than `high`, so that the largest tells of all.
    """

    low: float
    high: float
    unsigned: np.dtype | None


def _bounds(spec: TensorSpec) -> _Bounds | None:
    if spec.minimum is None and spec.maximum is None:
        return None
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum
    dtype = numpy_dtype(spec.dtype)
    signed_from_0 = dtype.kind == "i" and low == 0 and high <= np.iinfo(dtype).max
    return _Bounds(low, high, np.dtype(f"u{dtype.itemsize}") if signed_from_0 else None)


def _check_bounds(spec: TensorSpec, bounds: _Bounds, array: np.ndarray) -> None:
    if not array.size:
        return
    low, high, unsigned = bounds
    if unsigned is not None:
        if np.maximum.reduce(array.view(unsigned), axis=None) <= high:
            return
    elif np.minimum.reduce(array, axis=None) >= low and np.maximum.reduce(array, axis=None) <= high:
        return  # not where there is a NaN
    index = int(np.argmin((array >= low) & (array <= high)))
    raise refuse(
        spec.name,
        f"element {index} is {array.flat[index]}{_show_place(index, array)}, "
        f"expected {_show_bounds(spec)}",
    )


def _show_place(index: int, array: np.ndarray) -> str:
    """Where an element is, for people who count in rows."""
    if array.ndim < 2:
        return ""
    row, *place = (int(axis) for axis in np.unravel_index(index, array.shape))
    return f" (row {row}, place {', '.join(map(str, place))})"


def _show_bounds(spec: TensorSpec) -> str:
    if spec.minimum is None:
        return f"at most {spec.maximum:g}"
    if spec.maximum is None:
        return f"at least {spec.minimum:g}"
    return f"{spec.minimum:g} to {spec.maximum:g}"


def _check_row_splits(spec: TensorSpec, values: np.ndarray, splits: np.ndarray) -> None:
    name = spec.row_splits_name
    if splits[0] != 0:
        raise refuse(name, f"row splits start at 0, got {splits[0]}")
    falls = splits[1:] < splits[:-1]
    if len(falls) > 1 and np.logical_or.reduce(falls):  # of one row the ends tell all
        index = int(np.argmax(falls))
        raise refuse(
            name,
            f"row splits never fall, but element {index} is {splits[index]} "
            f"and element {index + 1} is {splits[index + 1]}",
        )
    if splits[-1] != len(values):
        raise refuse(
            name,
            f"row splits end at the length of '{spec.name}', which is {len(values)}, "
            f"got {splits[-1]}",
        )
