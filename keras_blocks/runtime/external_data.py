"""The files that an ONNX model is made of, found without the package onnx: a server needs none.

Large weights may lie beside the graph, which then names their files: ONNX calls them external data.
A file is one Protocol Buffers message; only the fields on the way to what is wanted are followed,
and weights are stepped over where they lie.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# By message, the numbers of its fields in onnx.proto that hold tensors, or messages that do.
_ON_THE_WAY: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
_TENSOR_ENTRY, _TENSOR_LOCATION, _ENTRY_KEY, _ENTRY_VALUE = 13, 14, 1, 2
_EXTERNAL = 1  # the value of `data_location`


def count_bytes(path: Path) -> int:
    """The bytes of a model on disk: its ONNX file, and each file of weights that it names."""
    return sum(file.stat().st_size for file in (path, *map(path.parent.joinpath, data_files(path))))


def data_files(path: Path, links: bool = True) -> list[str]:
    """The files beside an ONNX file that hold its weights, by a name that it has for each.

    Those outside of its folder and those that are missing are left out; onnxruntime refuses them.

    Args:
        path: the file.
        links: whether those count that are links out of the folder, as in caches of downloads.
    """
    names: set[str] = set()
    # What cannot be read here onnxruntime refuses with its reason.
    with contextlib.suppress(IndexError, ValueError, TypeError, OSError):
        names.update(map(_location, _tensors(mapped(path), "model")))
    folder = path.parent.resolve()
    there = {Path(os.path.normpath(folder / name)): name for name in sorted(names - {""})}
    inside = {file: name for file, name in there.items() if file.is_relative_to(folder)}
    return [
        name
        for file, name in inside.items()
        if file.is_file() and (links or file.resolve().is_relative_to(folder))
    ]


def mapped(path: str | os.PathLike[str]) -> memoryview:
    """A file as one message."""
    with open(path, "rb") as file:
        # No `with` for the map: it cannot close while an error still refers to a part of it.
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """The fields of a message: number and content, which is an int or a memoryview."""
    position = 0
    value: Any
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
        else:
            if kind == 2:
                size, position = _varint(message, position)
            else:
                size = {1: 8, 5: 4}.get(kind, -1)
            if size < 0 or position + size > len(message):
                raise ValueError(f"no field of a message: kind {kind}")
            value = message[position : position + size]
            position += size
        yield key >> 3, value


def text(value: memoryview | bytes) -> str:
    """The text that a field holds."""
    return bytes(value).decode()


def varints(packed: memoryview) -> Iterator[int]:
    """The numbers of a packed field."""
    position = 0
    while position < len(packed):
        value, position = _varint(packed, position)
        yield value


def _tensors(message: memoryview, kind: str) -> Iterator[memoryview]:
    for number, value in fields(message):
        inner = _ON_THE_WAY[kind].get(number)
        if inner == "tensor":
            yield value
        elif inner is not None:
            yield from _tensors(value, inner)


def _location(tensor: memoryview) -> str:
    """The file with the values of a tensor; empty where they are in the tensor itself."""
    entries: dict[str, str] = {}
    external = False
    for number, value in fields(tensor):
        if number == _TENSOR_LOCATION:
            external = value == _EXTERNAL
        elif number == _TENSOR_ENTRY:
            entry = dict(fields(value))
            entries[text(entry.get(_ENTRY_KEY, b""))] = text(entry.get(_ENTRY_VALUE, b""))
    return entries.get("location", "") if external else ""


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
