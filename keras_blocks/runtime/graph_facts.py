"""The nodes of an ONNX file, read without the package onnx: a server does not need the rest of it.

The file is one Protocol Buffers message. Only the fields on the way to the nodes are followed;
weights are stepped over where they lie.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_blocks.errors import ModelLoadError

# Numbers of fields in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 7, 8, 25
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_TENSOR_OUTSIDE, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2
_FUNCTION_NODE = 7
_NODE_INPUT, _NODE_OP, _NODE_ATTRIBUTE = 1, 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2

_RECURRENT_OPS = frozenset({"DynamicQuantizeLSTM", "GRU", "LSTM"})
_SEQUENCE_LENS = 4  # its place among the inputs of GRU and LSTM


@dataclass
class GraphFacts:
    """What the nodes of a file are.

    Args:
        ops: op -> how many nodes, those of loops and functions included.
        opset: domain -> version.
        recurrent: there is a GRU or LSTM. onnxruntime (1.32) ends the whole process when one runs
            on a batch of no rows, so that must not happen.
        lengths_unknown: one of them has no `sequence_lens`; a GRU then ends it on no steps too.
    """

    ops: Counter[str] = field(default_factory=Counter)
    opset: dict[str, int] = field(default_factory=dict)
    recurrent: bool = False
    lengths_unknown: bool = False


def graph_facts(path: str | os.PathLike[str]) -> GraphFacts:
    """Reads an ONNX file.

    Raises:
        ModelLoadError: it is no ONNX file.
    """
    facts = GraphFacts()
    try:
        for number, value in _fields(_mapped(path)):
            if number == _MODEL_GRAPH:
                _read_nodes(value, _GRAPH_NODE, facts)
            elif number == _MODEL_FUNCTION:
                _read_nodes(value, _FUNCTION_NODE, facts)
            elif number == _MODEL_OPSET:
                opset = dict(_fields(value))
                domain = _text(opset.get(_OPSET_DOMAIN, b"")) or "ai.onnx"
                facts.opset[domain] = opset.get(_OPSET_VERSION, 0)
    except (IndexError, ValueError, TypeError) as error:
        raise ModelLoadError("it is no ONNX file") from error
    return facts


def data_files(path: Path, links: bool = True) -> list[str]:
    """The files beside an ONNX file that hold its weights, as far as they lie in its folder.

    Args:
        path: the file.
        links: whether those count that are links out of the folder, as in caches of downloads.
    """
    names: set[str] = set()
    # What cannot be read here, or lies elsewhere, onnxruntime refuses with its reason.
    with contextlib.suppress(IndexError, ValueError, TypeError, OSError):
        for number, value in _fields(_mapped(path)):
            if number == _MODEL_GRAPH:
                tensors = (tensor for part, tensor in _fields(value) if part == _GRAPH_TENSOR)
                names.update(name for tensor in tensors for name in _locations(tensor))
    folder = path.parent.resolve()
    there = [(name, Path(os.path.normpath(folder / name))) for name in sorted(names)]
    inside = [(name, file) for name, file in there if file.is_relative_to(folder)]
    return [
        name
        for name, file in inside
        if file.is_file() and (links or file.resolve().is_relative_to(folder))
    ]


def _locations(tensor: memoryview) -> Iterator[str]:
    for part, entry in _fields(tensor):
        if part == _TENSOR_OUTSIDE:
            parts = dict(_fields(entry))
            if _text(parts.get(_ENTRY_KEY, b"")) == "location":
                yield _text(parts.get(_ENTRY_VALUE, b""))


def _mapped(path: str | os.PathLike[str]) -> memoryview:
    with open(path, "rb") as file:
        # No `with` for the map: it cannot close while an error still refers to a part of it.
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read_nodes(graph: memoryview, node_field: int, facts: GraphFacts) -> None:
    for number, node in _fields(graph):
        if number != node_field:
            continue
        inputs, op = [], ""
        for part, value in _fields(node):
            if part == _NODE_INPUT:
                inputs.append(_text(value))
            elif part == _NODE_OP:
                op = _text(value)
            elif part == _NODE_ATTRIBUTE:
                for inner, body in _fields(value):
                    if inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        _read_nodes(body, _GRAPH_NODE, facts)
        facts.ops[op] += 1
        if op in _RECURRENT_OPS:
            facts.recurrent = True
            facts.lengths_unknown |= not _has(inputs, _SEQUENCE_LENS)


def _has(inputs: Sequence[str], place: int) -> bool:
    return len(inputs) > place and inputs[place] != ""


def _text(value: memoryview | bytes) -> str:
    return bytes(value).decode()


def _fields(message: memoryview) -> Iterator[tuple[int, Any]]:
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


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
