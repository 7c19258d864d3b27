"""The nodes of an ONNX file, read without the package onnx: a server does not need the rest of it.

See `external_data` for how.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from keras_blocks.errors import ModelLoadError
from keras_blocks.runtime.external_data import fields, mapped, text

# Numbers of fields in onnx.proto.
_MODEL_IR, _MODEL_GRAPH, _MODEL_OPSET, _MODEL_FUNCTION = 1, 7, 8, 25
_GRAPH_NODE = 1
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
        ir_version: int, the version of the format.
        recurrent: there is a GRU or LSTM. onnxruntime (1.32) ends the whole process when one runs
            on a batch of no rows, so that must not happen.
        lengths_unknown: one of them has no `sequence_lens`; a GRU then ends it on no steps too.
    """

    ops: Counter[str] = field(default_factory=Counter)
    opset: dict[str, int] = field(default_factory=dict)
    ir_version: int = 0
    recurrent: bool = False
    lengths_unknown: bool = False


def graph_facts(path: str | os.PathLike[str]) -> GraphFacts:
    """Reads an ONNX file.

    Raises:
        ModelLoadError: it is no ONNX file.
    """
    facts = GraphFacts()
    try:
        for number, value in fields(mapped(path)):
            if number == _MODEL_GRAPH:
                _read_nodes(value, _GRAPH_NODE, facts)
            elif number == _MODEL_FUNCTION:
                _read_nodes(value, _FUNCTION_NODE, facts)
            elif number == _MODEL_IR:
                facts.ir_version = value
            elif number == _MODEL_OPSET:
                opset = dict(fields(value))
                domain = text(opset.get(_OPSET_DOMAIN, b"")) or "ai.onnx"
                facts.opset[domain] = opset.get(_OPSET_VERSION, 0)
    except (IndexError, ValueError, TypeError) as error:
        raise ModelLoadError("it is no ONNX file") from error
    return facts


def _read_nodes(graph: memoryview, node_field: int, facts: GraphFacts) -> None:
    for number, node in fields(graph):
        if number != node_field:
            continue
        inputs, op = [], ""
        for part, value in fields(node):
            if part == _NODE_INPUT:
                inputs.append(text(value))
            elif part == _NODE_OP:
                op = text(value)
            elif part == _NODE_ATTRIBUTE:
                for inner, body in fields(value):
                    if inner in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                        _read_nodes(body, _GRAPH_NODE, facts)
        facts.ops[op] += 1
        if op in _RECURRENT_OPS:
            facts.recurrent = True
            facts.lengths_unknown |= not _has(inputs, _SEQUENCE_LENS)


def _has(inputs: Sequence[str], place: int) -> bool:
    return len(inputs) > place and inputs[place] != ""
