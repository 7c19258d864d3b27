"""Exact conversion: a value reaches the model as it was given, or is refused.

Nothing is rounded to an integer, wrapped around, cut off or read as a number that was none; only
a float may lose digits on its way to a narrower float.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from keras_blocks.contract import FlatTensor
from keras_blocks.contract.dtypes import (
    BFLOAT16,
    PROTOCOL,
    STRING,
    from_bfloat16,
    numpy_dtype,
    to_bfloat16,
)
from keras_blocks.errors import ContractError

_MOST_DIMS = 64  # NumPy's own limit

_BY_KIND: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str},
}
_ALLOWED = {
    dtype: frozenset(_BY_KIND["f" if dtype == BFLOAT16 else numpy_dtype(dtype).kind])
    for dtype in PROTOCOL
}

# How `struct` calls the element types that it knows.
_CODES = {
    **{"bool": "?", "float16": "e", "float32": "f", "float64": "d"},
    **{"int8": "b", "int16": "h", "int32": "i", "int64": "q"},
    **{"uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q"},
}

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""How answers in JSON spell the numbers that it has no spelling of; requests may too."""

_JSON_NAMES = {
    bool: "a boolean",
    int: "an integer",
    float: "a fraction",
    str: "a string",
    list: "a list",
    tuple: "a list",
    dict: "an object",
    type(None): "null",
}


def refuse(name: str, problem: str) -> ContractError:
    """The error that says what is wrong with an input."""
    return ContractError(f"input '{name}': {problem}", name)


def flatten(data: Sequence[Any], shape: Sequence[int], name: str) -> list[Any]:
    """The items of a flat or nested list in row-major order; it must hold exactly `shape`.

    Compares lengths only, so that a declared shape costs no memory before it is known to be true.

    Example:
        >>> flatten([[1, 2], [3, 4]], (2, 2), "x")
        [1, 2, 3, 4]
    """
    if len(shape) > _MOST_DIMS:
        raise refuse(name, f"{len(shape)} dims, at most {_MOST_DIMS} can be read")
    if {list, tuple}.isdisjoint(map(type, data)):
        if len(data) != math.prod(shape):
            raise refuse(
                name,
                f"shape {list(shape)} has {math.prod(shape)} elements, but data has {len(data)}",
            )
        return list(data)
    parts: list[Any] = [data]
    for axis, size in enumerate(shape):
        for part in parts:
            if not isinstance(part, list | tuple):
                raise refuse(name, f"data mixes nested lists and {_kind(part)} ({_short(part)})")
            if len(part) != size:
                raise refuse(
                    name,
                    f"shape {list(shape)} has {size} entries along axis {axis}, "
                    f"but a nested list of data has {len(part)}; all must be as long",
                )
        parts = list(chain.from_iterable(parts))
    return parts


def nested_shape(data: Any) -> tuple[int, ...]:
    """The shape of a nested list, read off the first item of each level."""
    shape = []
    while isinstance(data, list | tuple):
        shape.append(len(data))
        if not data:
            break
        data = data[0]
    return tuple(shape)


def from_list(data: Sequence[Any], shape: Sequence[int], tensor: FlatTensor) -> np.ndarray:
    """The array of a flat or nested list, which must hold exactly `shape`."""
    # Most lists are flat, and right: their elements are looked at once.
    flat = len(shape) <= _MOST_DIMS and len(data) == math.prod(shape)
    if flat and _ALLOWED[tensor.dtype].issuperset(map(type, data)):
        return _packed(data, tensor).reshape(shape)
    return from_items(flatten(data, shape, tensor.name), tensor).reshape(shape)


def from_items(items: list[Any], tensor: FlatTensor) -> np.ndarray:
    """A flat array of Python numbers, booleans or strings."""
    kinds = set(map(type, items))
    allowed = _ALLOWED[tensor.dtype]
    if not kinds <= allowed and any(issubclass(kind, np.generic) for kind in kinds):
        items = [item.item() if isinstance(item, np.generic) else item for item in items]
        kinds = set(map(type, items))
    if not kinds <= allowed:
        items = _respelled(items, tensor)
        kinds = set(map(type, items))
    if not kinds <= allowed:
        index = next(i for i, item in enumerate(items) if type(item) not in allowed)
        raise refuse(
            tensor.name,
            f"{PROTOCOL[tensor.dtype]} expected, but element {index} is {_kind(items[index])}"
            f" ({_short(items[index])})",
        )
    return _packed(items, tensor)


def _respelled(items: list[Any], tensor: FlatTensor) -> list[Any]:
    """Numbers that JSON has no spelling of, as answers spell them."""
    if float in _ALLOWED[tensor.dtype]:
        return [NOT_FINITE.get(item, item) if type(item) is str else item for item in items]
    return items


def _decoded(item: bytes, tensor: FlatTensor) -> str:
    try:
        return item.decode()
    except UnicodeDecodeError as error:
        raise refuse(tensor.name, f"text in UTF-8 expected: {error}") from None


def _packed(items: Sequence[Any], tensor: FlatTensor) -> np.ndarray:
    """A flat array of items of the right types.

    With "=" `struct` refuses what the element type cannot hold; it is quicker than NumPy.
    """
    code = _CODES.get(tensor.dtype)
    if code is None:
        if tensor.dtype == STRING:
            return np.array(items, dtype=object)
        wide = _packed(items, FlatTensor(tensor.name, "float32", tensor.shape))
        return _narrow_bfloat16(wide, tensor)
    dtype = numpy_dtype(tensor.dtype)
    array = np.empty(len(items), dtype)
    try:
        struct.pack_into(f"={len(items)}{code}", array.data, 0, *items)
    except (struct.error, OverflowError):
        index = next(i for i, item in enumerate(items) if not _fits(item, code))
        raise _out_of_range(tensor, index, items[index]) from None
    return array


def _fits(item: Any, code: str) -> bool:
    try:
        struct.pack(f"={code}", item)
    except (struct.error, OverflowError):
        return False
    return True


def cast(array: np.ndarray, tensor: FlatTensor) -> np.ndarray:
    """An array in the tensor's dtype."""
    dtype = numpy_dtype(tensor.dtype)
    if tensor.dtype == STRING:
        return _as_text(array, tensor)
    if array.dtype == dtype:
        return array
    if tensor.dtype == BFLOAT16:
        return _narrow_bfloat16(cast(array, FlatTensor(tensor.name, "float32", ())), tensor)
    kind = array.dtype.kind
    if kind not in {"b": "b", "i": "iu", "u": "iu", "f": "fiu"}[dtype.kind]:
        raise refuse(tensor.name, f"dtype {tensor.dtype} expected, got {array.dtype}")
    if dtype.kind in "iu" and array.size:
        info = np.iinfo(dtype)
        for index in (array.argmin(), array.argmax()):
            value = int(array.flat[index])
            if not info.min <= value <= info.max:
                raise _out_of_range(tensor, int(index), value)
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if dtype.kind == "f":
        _refuse_overflow(result, array, tensor)
    return result


def to_array(value: Any, tensor: FlatTensor) -> np.ndarray:
    """An array, number or nested list as an array of the tensor's dtype and of its own shape."""
    if isinstance(value, list | tuple) and not any(isinstance(v, np.ndarray) for v in value):
        shape = nested_shape(value)
        array = from_list(value, shape, tensor)
        return array.reshape(_empty_shape(shape, tensor)) if not array.size else array
    if isinstance(value, bool | int | float | str):
        return from_items([value], tensor).reshape(())
    try:
        array = np.asarray(value)
    except ValueError:
        raise refuse(tensor.name, "its rows have unequal lengths, and it is not ragged") from None
    return cast(array, tensor)


def _empty_shape(shape: tuple[int, ...], tensor: FlatTensor) -> tuple[int, ...]:
    # `[]` for (batch, 64) means (0, 64): an empty list cannot show the axes behind it.
    rest = tensor.shape[len(shape) :]
    return shape + tuple(dim if isinstance(dim, int) else 0 for dim in rest)


def _as_text(array: np.ndarray, tensor: FlatTensor) -> np.ndarray:
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise refuse(tensor.name, f"text in UTF-8 expected: {error}") from None
    text = array.astype(object)
    if array.dtype.kind == "O" and any(isinstance(item, bytes) for item in text.flat):
        items = [_decoded(i, tensor) if isinstance(i, bytes) else i for i in text.flat]
        text = np.array(items, dtype=object).reshape(text.shape)
    if array.dtype.kind != "U" and not all(isinstance(item, str) for item in text.flat):
        raise refuse(tensor.name, f"strings expected, got {array.dtype}")
    return text


def _narrow_bfloat16(wide: np.ndarray, tensor: FlatTensor) -> np.ndarray:
    bits = to_bfloat16(wide)
    _refuse_overflow(from_bfloat16(bits), wide, tensor)
    return bits


def _refuse_overflow(narrow: np.ndarray, wide: np.ndarray, tensor: FlatTensor) -> None:
    overflown = np.isinf(narrow) & np.isfinite(wide)
    if overflown.any():
        index = int(overflown.argmax())
        raise _out_of_range(tensor, index, wide.flat[index].item())


def _out_of_range(tensor: FlatTensor, index: int, value: Any) -> ContractError:
    return refuse(
        tensor.name, f"element {index} is {_short(value)}, outside the range of {tensor.dtype}"
    )


def _kind(value: Any) -> str:
    return _JSON_NAMES.get(type(value), f"a {type(value).__name__}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
