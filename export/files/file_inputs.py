"""The inputs of an ONNX file: what they must be, and a user's data brought into that form."""

from __future__ import annotations

import itertools
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import ROW_SPLITS_DTYPE, Contract, TensorSpec
from keras_blocks.errors import ContractError, ExportError
from keras_blocks.export.onnx_side import OnnxSide, element_type

Feed = dict[str, np.ndarray]
"""The flat inputs of one run, by name."""

ROWS = 64  # of given data in one run, where they can be told apart; keeps the memory small


def file_contract(side: OnnxSide) -> Contract:
    """The contract in a file's metadata, or one that says what its graph says.

    Raises:
        ExportError: what is there is no contract.
    """
    try:
        stored = side.contract()
    except ValueError as error:
        raise ExportError(f"its metadata holds a broken contract: {error}") from error
    if stored is not None:
        return stored
    inputs, outputs = side.session.get_inputs(), side.session.get_outputs()
    return Contract(tuple(map(_graph_spec, inputs)), tuple(map(_graph_spec, outputs)))


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
    splits = np.asarray(splits).astype(ROW_SPLITS_DTYPE)
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
    return array.astype(wanted)


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


def _graph_spec(node: Any) -> TensorSpec:
    shape = tuple(
        dim if isinstance(dim, int) else dim or ("batch" if axis == 0 else f"{node.name}.{axis}")
        for axis, dim in enumerate(node.shape or ())
    )
    return TensorSpec(node.name, element_type(node), shape)


def read_array(path: Path) -> np.ndarray:
    """The one array in an `.npy` or `.npz` file.

    Raises:
        ContractError: it is no such file.
    """
    loaded = read_arrays(path)
    arrays = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    if len(arrays) != 1:
        raise ContractError(f"{path}: one array expected, it holds {', '.join(loaded) or 'none'}")
    return arrays[0]


def read_arrays(path: Path) -> dict[str, np.ndarray] | np.ndarray:
    """The arrays in an `.npz` file by name, or that in an `.npy` file.

    Raises:
        ContractError: it is no such file.
    """
    try:
        with open(path, "rb") as file:  # NumPy leaves a broken one open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {name: loaded[name] for name in loaded.files}
            return loaded
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ContractError(f"{path}: not a file of plain NumPy arrays: {error}") from None
