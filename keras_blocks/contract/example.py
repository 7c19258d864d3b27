"""A small valid request for any model, to show and to try."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_blocks.contract import ROW_SPLITS_DTYPE, Contract, Dim, TensorSpec
from keras_blocks.contract.dtypes import ANY_SHAPE, STRING, numpy_dtype
from keras_blocks.contract.tree_validation import leaves
from keras_blocks.contract.validation import split_dim

_MOST_TRIED = 2**22
_ROWS = (3, 2)
_FREE_SIZE = 3


def example_inputs(
    contract: Contract,
    lengths: Sequence[int] = _ROWS,
    free_sizes: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """Arrays that the contract allows: zeros, or the allowed values next to zero; not padding.

    Args:
        contract: what the inputs must be.
        lengths: the steps of each row of ragged inputs; those of leaves have as many as the trees
            have. Dense models get a batch of one.
        free_sizes: the sizes of other free dims, by their names; 3 by default.
    """
    sizes = _sizes(contract, lengths) | dict(free_sizes or {})
    arrays: dict[str, np.ndarray] = {}
    for spec in contract.inputs:
        arrays[spec.name] = _example_values(spec, contract, sizes, lengths)
        if spec.ragged:
            own = _lengths(spec, contract, lengths)
            arrays[spec.row_splits_name] = np.cumsum([0, *own], dtype=ROW_SPLITS_DTYPE)
    return arrays


def example_elements(contract: Contract) -> int:
    """How many elements the example has in all; known without making it."""
    sizes = _sizes(contract, _ROWS)
    return sum(math.prod(_shape(spec, sizes)) for spec in contract.inputs)


def is_small(contract: Contract) -> bool:
    """Whether a model is run on its example before its first request."""
    return example_elements(contract) <= _MOST_TRIED


def _example_values(
    spec: TensorSpec, contract: Contract, sizes: dict[str, int], lengths: Sequence[int]
) -> np.ndarray:
    if spec.tree_of is not None:
        return np.concatenate([parents for parents, _ in _trees(spec, lengths)]).astype(spec.dtype)
    if spec.edges_of is not None and spec.siblings_differ:
        trees = _trees(_named(contract, spec.edges_of), lengths)
        return np.concatenate([places for _, places in trees]).astype(spec.dtype)
    shape = _shape(spec, sizes)
    if spec.dtype == STRING:
        return np.full(shape, "text", dtype=object)
    low = -math.inf if spec.minimum is None else spec.minimum
    high = math.inf if spec.maximum is None else spec.maximum
    # Steps of nothing but padding would show nothing.
    nearest = 1 if spec.padding == 0 and low <= 1 <= high else 0
    return np.full(shape, min(max(nearest, low), high)).astype(numpy_dtype(spec.dtype))


def _trees(spec: TensorSpec, sizes: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The parents of trees of some sizes, and each node's place among its siblings.

    A root and its children, and theirs where it may not have as many.
    """
    trees = []
    for nodes in sizes:
        most = spec.max_children or nodes
        parents, places = np.divmod(np.arange(nodes) - 1, most)
        places[0] = 0
        trees.append((parents, places))
    return trees


def _lengths(spec: TensorSpec, contract: Contract, lengths: Sequence[int]) -> Sequence[int]:
    if spec.leaves_of is None:
        return lengths
    parents = [parents for parents, _ in _trees(_named(contract, spec.leaves_of), lengths)]
    return leaves(np.concatenate(parents), np.cumsum([0, *lengths])).tolist()


def _named(contract: Contract, name: str) -> TensorSpec:
    return next(spec for spec in contract.inputs if spec.name == name)


def _sizes(contract: Contract, lengths: Sequence[int]) -> dict[str, int]:
    ragged = [spec for spec in contract.inputs if spec.ragged]
    sizes: dict[str, int] = {"batch": len(lengths) if ragged else 1}
    for spec in ragged:
        if isinstance(spec.shape[0], str):
            sizes[spec.shape[0]] = sum(_lengths(spec, contract, lengths))
    for dim, least in contract.least_sizes().items():
        if least:
            sizes[dim] = max(sizes.get(dim, _FREE_SIZE), least)
    return sizes


def _shape(spec: TensorSpec, sizes: dict[str, int]) -> tuple[int, ...]:
    dims = () if spec.shape == ANY_SHAPE else spec.shape
    return tuple(_size(dim, sizes) for dim in dims)


def _size(dim: Dim, sizes: dict[str, int]) -> int:
    if isinstance(dim, int):
        return dim
    name, extra = split_dim(dim)
    return sizes.get(name, _FREE_SIZE) + extra
