"""From what a Python caller gives to the flat arrays of the graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import ROW_SPLITS_DTYPE, Contract, TensorSpec
from keras_blocks.contract.array_files import read_arrays
from keras_blocks.contract.rows import join_rows
from keras_blocks.contract.values import to_array
from keras_blocks.errors import ContractError
from keras_blocks.export.files.file_inputs import as_dtype

Feed = dict[str, np.ndarray]
"""The flat inputs of one run, by name."""
ROWS = 64  # of given data in one run, where they can be told apart; keeps the memory small


def flat_inputs(contract: Contract, given: Any) -> dict[str, np.ndarray]:
    """Arrays in the dtypes of the contract.

    What is no mapping is the value of the model's one input.

    A ragged input `x` is a list of rows of any lengths, or `x` (all rows after one another) with
    `x.row_splits`. Names that the contract lacks are kept, so that validation can name them.

    Raises:
        ContractError: a value cannot become an array of its input's dtype.
    """
    if not isinstance(given, Mapping):
        names = [spec.name for spec in contract.inputs]
        if len(names) != 1:
            came = f"inputs is of type {type(given).__name__}"
            raise ContractError(f"{came}, a mapping expected: the model takes {names}")
        given = {names[0]: given}
    flat: dict[str, Any] = dict(given)
    for spec in contract.inputs:
        if spec.name not in given:
            continue
        if spec.ragged and spec.row_splits_name not in given:
            flat[spec.name], flat[spec.row_splits_name] = join_rows(spec, given[spec.name])
            continue
        for tensor in spec.flat():
            flat[tensor.name] = to_array(given[tensor.name], tensor)
    return flat


def as_feeds(contract: Contract, data: Any, argument: str) -> list[Feed]:
    """A user's data as flat inputs, some rows at a time.

    Args:
        contract: of the file.
        data: an array, for a file of one input; a dict of arrays by input, where a ragged input is
            a list of rows or its flat values and row splits; an iterable of these, each a batch;
            or the name of an `.npz` file that holds such a dict, or an `.npy` file an array.
        argument: str, what the data is called in errors.
    Raises:
        ContractError: the data does not fit the inputs, or there is none.
    """
    if isinstance(data, (str, Path)):
        data = read_arrays(Path(data))
    one = isinstance(data, (Mapping, np.ndarray)) or not isinstance(data, Iterable)
    feeds: list[Feed] = []
    for batch in [data] if one else data:
        feeds += _rows_of(contract, _feed(contract, batch, argument))
    if not feeds:
        raise ContractError(f"{argument} holds no batch; give at least one")
    return feeds


def _feed(contract: Contract, batch: Any, argument: str) -> Feed:
    names = [spec.name for spec in contract.inputs]
    if not isinstance(batch, Mapping):
        if len(names) != 1:
            raise ContractError(
                f"{argument}: a dict (or .npz file) with the inputs {', '.join(names)} expected, "
                f"got {type(batch).__name__}"
            )
        batch = {names[0]: batch}
    known = {tensor.name for tensor in contract.flat_inputs()}
    for name in batch:
        if name not in known:
            raise ContractError(
                f"{argument}: input '{name}' is unknown; the file has {', '.join(names)}", name
            )
    feed: Feed = {}
    for spec in contract.inputs:
        if spec.name not in batch:
            raise ContractError(
                f"{argument}: input '{spec.name}' is missing; got {', '.join(batch) or 'nothing'}",
                spec.name,
            )
        feed.update(_flat(spec, batch, argument))
    _check_sizes(contract, feed, argument)
    return feed


def _flat(spec: TensorSpec, batch: Mapping[str, Any], argument: str) -> Iterator[tuple[str, Any]]:
    value = batch[spec.name]
    if not spec.ragged:
        yield spec.name, _array(spec, value, argument)
        return
    splits = batch.get(spec.row_splits_name, getattr(value, "row_splits", None))
    if splits is None:
        rows = [np.asarray(row) for row in value]
        splits = np.cumsum([0, *map(len, rows)])
        value = np.concatenate([row for row in rows if row.size] or [np.zeros((0,))])
        if not value.size:
            value = value.reshape(0, *(d if isinstance(d, int) else 1 for d in spec.shape[1:]))
            value = value.astype(spec.dtype)
    yield spec.name, _array(spec, getattr(value, "values", value), argument)
    splits = np.asarray(splits)
    if splits.dtype.kind not in "iu" and splits.size:
        raise ContractError(
            f"{argument}: '{spec.row_splits_name}' has dtype {splits.dtype}, integers expected",
            spec.name,
        )
    splits = as_dtype(splits, np.dtype(ROW_SPLITS_DTYPE), spec.row_splits_name, argument)
    steps = np.diff(splits) if splits.ndim == 1 else np.array([-1])
    if not splits.size or splits[0] != 0 or (steps < 0).any():
        raise ContractError(
            f"{argument}: '{spec.row_splits_name}' must rise from 0; got {splits.tolist()[:9]}",
            spec.name,
        )
    yield spec.row_splits_name, splits


def _array(spec: TensorSpec, value: Any, argument: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise ContractError(
            f"{argument}: input '{spec.name}' has rows of unequal length, and is not ragged",
            spec.name,
        ) from None
    wanted = np.dtype(object) if spec.dtype == "string" else np.dtype(spec.dtype)
    if not np.can_cast(array.dtype, wanted, "same_kind") and not (
        array.dtype.kind in "iu" and wanted.kind in "iuf"
    ):
        raise ContractError(
            f"{argument}: input '{spec.name}' has dtype {array.dtype}, {spec.dtype} expected",
            spec.name,
        )
    fixed = [d if isinstance(d, int) else s for d, s in zip(spec.shape, array.shape, strict=False)]
    if len(spec.shape) != array.ndim or fixed != list(array.shape):
        raise ContractError(
            f"{argument}: input '{spec.name}' has shape {list(array.shape)}, "
            f"[{', '.join(map(str, spec.shape))}] expected",
            spec.name,
        )
    return as_dtype(array, wanted, spec.name, argument)


def _check_sizes(contract: Contract, feed: Feed, argument: str) -> None:
    """Equal names of dims mean equal sizes, and there must be something to run."""
    sizes: dict[str, tuple[int, str]] = {}
    for spec in contract.inputs:
        shape = feed[spec.name].shape
        if spec.ragged:
            rows = feed[spec.row_splits_name]
            if rows[-1] != shape[0]:
                raise ContractError(
                    f"{argument}: '{spec.row_splits_name}' ends at {rows[-1]}, "
                    f"but '{spec.name}' has {shape[0]} values",
                    spec.name,
                )
            named = [("batch", len(rows) - 1), *zip(spec.shape[1:], shape[1:], strict=True)]
        else:
            named = list(zip(spec.shape, shape, strict=True))
        for dim, size in named:
            if isinstance(dim, int):
                continue
            if size == 0:
                raise ContractError(f"{argument}: input '{spec.name}' is empty", spec.name)
            first, owner = sizes.setdefault(dim, (size, spec.name))
            if first != size:
                raise ContractError(
                    f"{argument}: dim '{dim}' is {first} in input '{owner}' and {size} in "
                    f"'{spec.name}'",
                    spec.name,
                )


def _rows_of(contract: Contract, feed: Feed) -> Iterator[Feed]:
    """A batch as several of `ROWS` rows, if every input tells its rows apart."""
    firsts = {spec.shape[0] if spec.shape else 0 for spec in contract.inputs if not spec.ragged}
    if any(isinstance(dim, int) for dim in firsts) or len(firsts) > 1:
        yield feed
        return
    spec = contract.inputs[0]
    rows = len(feed[spec.row_splits_name]) - 1 if spec.ragged else len(feed[spec.name])
    for start, end in itertools.pairwise([*range(0, rows, ROWS), rows]):
        part: Feed = {}
        for spec in contract.inputs:
            if spec.ragged:
                splits = feed[spec.row_splits_name][start : end + 1]
                part[spec.name] = feed[spec.name][splits[0] : splits[-1]]
                part[spec.row_splits_name] = splits - splits[0]
            else:
                part[spec.name] = feed[spec.name][start:end]
        yield part
