"""The weights beside an ONNX file, given to onnxruntime from memory."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime

from keras_blocks.errors import ModelLoadError
from keras_blocks.runtime.external_data import data_files, fields, mapped, text, varints

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _GRAPH_TENSOR = 7, 5
_TENSOR_DIM, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_ENTRY, _TENSOR_IS_OUTSIDE = 1, 2, 8, 13, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2


@dataclass
class OutsideWeight:
    """A weight whose values are in a file beside the graph's.

    Args:
        name: str, that of the tensor.
        location: str, the file.
        offset, length: int, the bytes in it; no length means all to its end.
        element_type: int, its number in onnx.proto.
        dims: the sizes of the tensor.
    """

    name: str = ""
    location: str = ""
    offset: int = 0
    length: int | None = None
    element_type: int = 0
    dims: list[int] = field(default_factory=list)


@contextlib.contextmanager
def given_weights(
    options: onnxruntime.SessionOptions, path: Path, links: bool = True
) -> Iterator[list[onnxruntime.OrtValue]]:
    """Reads the files of weights, which onnxruntime would map into memory: whoever writes over them
    while the model is served would change its answers, and end the process where they get shorter.

    The session is made within the context, where what was read is still there; it takes copies.
    Gives what has to live as long as the session all the same.

    Args:
        options: of the session, which learn of the weights.
        path: the ONNX file.
        links: whether weights may be links out of its folder.
    """
    weights = list(outside_weights(path))
    files = {_place(path, name): name for name in data_files(path, links)}
    for weight in weights:
        if _place(path, weight.location) not in files:
            raise ModelLoadError(
                f"its weights are in the data file '{weight.location}', which is not beside it"
            )
    data = {file: _read(file, name) for file, name in files.items()}
    values: list[onnxruntime.OrtValue] = []
    if data and hasattr(options, "add_external_initializers_from_files_in_memory"):
        arrays = list(data.values())
        options.add_external_initializers_from_files_in_memory(
            list(files.values()), arrays, [array.size for array in arrays]
        )
    elif data:  # before onnxruntime 1.24
        values = [_value(weight, data[_place(path, weight.location)]) for weight in weights]
        options.add_external_initializers([weight.name for weight in weights], values)
    yield values


def outside_weights(path: Path) -> Iterator[OutsideWeight]:
    """The weights of the outermost graph that an ONNX file keeps in other files."""
    # What cannot be read here, onnxruntime refuses with its reason.
    with contextlib.suppress(IndexError, ValueError, TypeError, OSError):
        for number, value in fields(mapped(path)):
            if number == _MODEL_GRAPH:
                weights = (_outside(t) for part, t in fields(value) if part == _GRAPH_TENSOR)
                yield from (weight for weight in weights if weight.location)


def _outside(tensor: memoryview) -> OutsideWeight:
    """A tensor; without a location if its values are in the graph."""
    weight, is_outside = OutsideWeight(), False
    for part, value in fields(tensor):
        if part == _TENSOR_DIM:
            weight.dims += [value] if isinstance(value, int) else varints(value)
        elif part == _TENSOR_TYPE:
            weight.element_type = value
        elif part == _TENSOR_NAME:
            weight.name = text(value)
        elif part == _TENSOR_IS_OUTSIDE:
            is_outside = value == 1
        elif part == _TENSOR_ENTRY:
            entry = {number: text(content) for number, content in fields(value)}
            key, content = entry.get(_ENTRY_KEY), entry.get(_ENTRY_VALUE, "")
            if key == "location":
                weight.location = content
            elif key == "offset":
                weight.offset = int(content)
            elif key == "length":
                weight.length = int(content)
    return weight if is_outside else OutsideWeight()


def _place(path: Path, name: str) -> Path:
    """Where a file of weights is, one place for all ways to name it."""
    return Path(os.path.normpath(path.parent / name))


def _read(file: Path, name: str) -> np.ndarray:
    try:
        return np.fromfile(file, "uint8")
    except (OSError, MemoryError) as error:
        raise ModelLoadError(f"its data file '{name}' cannot be read: {error}") from error


def _value(weight: OutsideWeight, data: np.ndarray) -> onnxruntime.OrtValue:
    """The value of a weight; its bits count, whatever NumPy calls their type."""
    end = data.size if weight.length is None else weight.offset + weight.length
    bits = data[weight.offset : end]
    elements = math.prod(weight.dims)
    if bits.size == 0 or end > data.size or bits.size % max(elements, 1):
        raise ModelLoadError(
            f"the data file '{weight.location}' is too short for '{weight.name}', or it is empty"
        )
    array = bits.view(f"uint{8 * bits.size // elements}").reshape(weight.dims)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(array, weight.element_type)
