"""Inputs and outputs of a model in files: `.npz`, `.npy`, and `.json` in two forms."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.rows import split_rows
from keras_blocks.errors import ContractError, UnreadableError
from keras_blocks.serving.protocol.tensor_data import json_floats


class FileFormatError(UnreadableError):
    """A file of inputs or outputs cannot be read or written."""


def read_inputs(path: Path, contract: Contract) -> dict[str, Any]:
    """The inputs in a file, as `Model.predict` takes them.

    A `.npz` file holds one array per input (`x` and `x.row_splits` for a ragged one), a `.npy` file
    that of a model with one. A JSON file is either `{"x": nested lists}`, ragged rows being lists
    of unequal length, or the body of an infer request of the Open Inference Protocol.
    """
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".npy":
        return _read_npy(path, contract)
    if path.suffix != ".json":
        raise FileFormatError(f"{path}: a .json, .npy or .npz file expected")
    try:
        body = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise FileFormatError(f'{path}: an object expected: {{"input name": nested lists, ...}}')
    from keras_blocks.serving.rest.codec import decode_request

    return decode_request(body, contract).inputs if _is_request(body) else body


def write_outputs(path: Path, contract: Contract, outputs: Mapping[str, np.ndarray]) -> None:
    """Writes outputs: `.npz` holds them as they are, `.json` as `{"y": nested lists}`."""
    if path.suffix == ".npz":
        np.savez(path, **_without_objects(outputs))
    elif path.suffix == ".json":
        path.write_text(json.dumps(nested(contract, outputs)) + "\n", encoding="utf-8")
    else:
        raise FileFormatError(f"{path}: a .json or .npz file expected")


def nested(contract: Contract, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Outputs as nested lists; a ragged output is a list of rows of unequal length.

    JSON has no NaN and no infinities: they become strings, as in the server's answers.
    """
    result: dict[str, Any] = {}
    for spec in contract.outputs:
        values = outputs[spec.name]
        if spec.ragged:
            rows = split_rows(values, outputs[spec.row_splits_name])
            result[spec.name] = [_as_lists(row) for row in rows]
        else:
            result[spec.name] = _as_lists(values)
    return result


def _as_lists(array: np.ndarray) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    items = np.empty(array.size, dtype=object)
    items[:] = json_floats(array.reshape(-1))
    return items.reshape(array.shape).tolist()


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:  # NumPy leaves a broken one open
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name; write it with np.savez")
            return {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise FileFormatError(f"{path}: not an .npz file of plain arrays: {error}") from None


def _read_npy(path: Path, contract: Contract) -> dict[str, Any]:
    names = [tensor.name for tensor in contract.flat_inputs()]
    if len(names) != 1:
        raise FileFormatError(
            f"{path}: one array, but the model takes {', '.join(names)}; write them to a .npz file"
        )
    try:
        with open(path, "rb") as file:
            return {names[0]: np.lib.format.read_array(file, allow_pickle=False)}
    except (ValueError, EOFError) as error:
        raise FileFormatError(f"{path}: not a .npy file of a plain array: {error}") from None


def _without_objects(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    # Text becomes NumPy's own string type: object arrays would be pickled.
    return {n: a.astype(str) if a.dtype == object else a for n, a in outputs.items()}


def _is_request(body: dict[str, Any]) -> bool:
    items = body.get("inputs")
    return (
        isinstance(items, list)
        and bool(items)
        and all(isinstance(item, dict) and "name" in item for item in items)
    )


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
