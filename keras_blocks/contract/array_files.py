"""Inputs and outputs of a model in files: `.npz`, `.npy` and `.json`."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.json_numbers import json_floats
from keras_blocks.contract.rows import split_rows
from keras_blocks.errors import ContractError


class FileFormatError(ContractError):
    """A file of inputs or outputs cannot be read or written."""


def read_inputs(path: Path, contract: Contract) -> dict[str, Any]:
    """The inputs in a file, as `Model.predict` takes them.

    A `.npz` file holds one array per input (`x` and `x.row_splits` for a ragged one), a `.npy` file
    that of a model with one. A JSON file holds `{"x": nested lists}`, ragged rows being lists of
    unequal length.

    Raises:
        FileFormatError: it is no such file.
    """
    if path.suffix in (".npz", ".npy"):
        return _by_name(path, read_arrays(path), contract)
    if path.suffix != ".json":
        raise FileFormatError(f"{path}: a .json, .npy or .npz file expected")
    try:
        body = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(body, dict):
        raise FileFormatError(f'{path}: an object expected: {{"input name": nested lists, ...}}')
    return body


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


def _by_name(path: Path, loaded: dict[str, np.ndarray] | np.ndarray, contract: Contract) -> Any:
    names = [tensor.name for tensor in contract.flat_inputs()]
    if isinstance(loaded, dict):
        return loaded
    if len(names) != 1:
        raise FileFormatError(
            f"{path}: one array, but the model takes {', '.join(names)}; write them to a .npz file"
        )
    return {names[0]: loaded}


def _without_objects(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    # Text becomes NumPy's own string type: object arrays would be pickled.
    return {n: a.astype(str) if a.dtype == object else a for n, a in outputs.items()}


def read_array(path: Path) -> np.ndarray:
    """The one array in an `.npy` or `.npz` file.

    Raises:
        FileFormatError: it is no such file.
    """
    loaded = read_arrays(path)
    arrays = list(loaded.values()) if isinstance(loaded, dict) else [loaded]
    if len(arrays) != 1:
        raise FileFormatError(f"{path}: one array expected, it holds {', '.join(loaded) or 'none'}")
    return arrays[0]


def read_arrays(path: Path) -> dict[str, np.ndarray] | np.ndarray:
    """The arrays in an `.npz` file by name, or that in an `.npy` file.

    Raises:
        FileFormatError: it is no such file.
    """
    kind = (
        "a .npy file of a plain array" if path.suffix == ".npy" else "an .npz file of plain arrays"
    )
    try:
        with open(path, "rb") as file:  # NumPy leaves a broken one open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.lib.npyio.NpzFile):
                return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy goes on to say how to run the code in a pickle.
        reason = str(error).partition(" If you trust")[0]
        raise FileFormatError(f"{path}: not {kind}: {reason}") from None
    if path.suffix == ".npz":
        raise FileFormatError(f"{path}: not {kind}: its one array has no name; use np.savez")
    return loaded
