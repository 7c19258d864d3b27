"""Where the bytes of requests become arrays, and arrays the bytes of answers.

A tensor comes as a JSON list, as the typed numbers of a gRPC message, or as raw bytes: elements in
row-major order, little-endian; text as a length in four bytes before each item's UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_blocks.contract import FlatTensor
from keras_blocks.contract.dtypes import (
    BFLOAT16,
    PROTOCOL,
    STRING,
    from_bfloat16,
    numpy_dtype,
    wire_dtype,
)
from keras_blocks.contract.json_numbers import json_floats
from keras_blocks.contract.validation import check_shape
from keras_blocks.contract.values import cast, from_list, refuse
from keras_blocks.serving.limits import Limits, check_declared_shape

_LENGTH = struct.Struct("<I")


def read_tensor(
    tensor: FlatTensor, datatype: Any, shape: Any, data: Any, limits: Limits
) -> np.ndarray:
    """The array of a tensor of a request; a view of its bytes where they can be one.

    Datatype, rank, fixed dims and the number of elements are checked before anything is allocated.

    Args:
        tensor: what the contract says of it.
        datatype: the protocol's name of its element type.
        shape: its declared shape.
        data: a flat or nested list, an array of typed numbers, or a buffer of raw bytes.
        limits: what one request may ask for.
    Raises:
        ContractError: names the input, what came and what was expected.
    """
    expected = PROTOCOL[tensor.dtype]
    if datatype != expected:
        came = f"'{datatype[:40]}'" if isinstance(datatype, str) else "no datatype"
        raise refuse(tensor.name, f"datatype '{expected}' expected, got {came}")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise refuse(tensor.name, "'shape' must be a list of integers that are not negative")
    check_shape(tensor, shape)
    check_declared_shape(tensor.name, shape, limits)
    if isinstance(data, list):
        return from_list(data, shape, tensor)
    if isinstance(data, memoryview):
        return _from_bytes(data, tensor, shape)
    if isinstance(data, np.ndarray):
        if data.size != math.prod(shape):
            raise _wrong_size(tensor.name, shape, f"{data.size} came")
        return cast(data, tensor).reshape(shape)
    came = "no 'data'" if data is None else f"'data' that is a {type(data).__name__}"
    raise refuse(tensor.name, f"{came}, a list of {expected} expected")


def to_bytes(array: np.ndarray) -> Any:
    """The raw bytes of an array, as anything that `b"".join` takes."""
    if array.dtype != object:
        return np.ascontiguousarray(array)
    items = [str(item).encode() for item in array.reshape(-1)]
    return b"".join(part for item in items for part in (_LENGTH.pack(len(item)), item))


def to_json(array: np.ndarray, dtype: str) -> Any:
    """The elements in row-major order, as a list or flat array that is fit for JSON.

    JSON has no NaN and no infinities: they become the strings "NaN", "Infinity" and "-Infinity",
    as in the JSON mapping of Protocol Buffers.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if dtype == STRING:
        return flat.tolist()
    if dtype == BFLOAT16:
        flat = from_bfloat16(flat)
    if flat.dtype.kind != "f" or np.isfinite(flat).all():
        return flat
    return json_floats(flat)


def _from_bytes(data: memoryview, tensor: FlatTensor, shape: Sequence[int]) -> np.ndarray:
    if tensor.dtype == STRING:
        return _read_texts(data, tensor, shape)
    dtype = numpy_dtype(tensor.dtype)
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise _wrong_size(tensor.name, shape, f"{len(data)} bytes came, {expected} expected")
    if tensor.dtype == "bool":
        bits = np.frombuffer(data, dtype="uint8")
        if bits.max(initial=0) > 1:
            raise refuse(tensor.name, f"element {int(bits.argmax())} is neither 0 nor 1")
    array = np.frombuffer(data, dtype=wire_dtype(tensor.dtype)).reshape(shape)
    # onnxruntime reads whole elements, so they must lie where elements may begin.
    return array if array.flags.aligned and array.dtype == dtype else array.astype(dtype)


def _read_texts(data: memoryview, tensor: FlatTensor, shape: Sequence[int]) -> np.ndarray:
    items: list[str] = []
    position = 0
    try:
        while position < len(data):
            (length,) = _LENGTH.unpack_from(data, position)
            position += _LENGTH.size
            if position + length > len(data):
                raise refuse(tensor.name, f"the bytes end within element {len(items)}")
            items.append(str(data[position : position + length], "utf-8"))
            position += length
    except struct.error:
        raise refuse(tensor.name, f"the bytes end within element {len(items)}") from None
    except UnicodeDecodeError:
        raise refuse(tensor.name, f"element {len(items)} is not UTF-8") from None
    return from_list(items, shape, tensor)


def _wrong_size(name: str, shape: Sequence[int], came: str) -> Exception:
    return refuse(name, f"shape {list(shape)} has {math.prod(shape)} elements, but {came}")
