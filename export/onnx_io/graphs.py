"""Ways through an ONNX graph and the graphs inside its nodes (loop bodies, branches)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import onnx

# onnxruntime's own domain; its ops are known to it, not to onnx.
RUNTIME_DOMAIN = "com.microsoft"


def nested_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in graphs_of(node):
            yield from nested_graphs(inner)


def op_counts(model: onnx.ModelProto) -> dict[str, int]:
    """How often each op occurs, loop bodies included, the most frequent first."""
    counts: dict[str, int] = {}
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def graphs_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that are attributes of a node."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what the graphs inside it do, from within or from outside."""
    yield from node.input
    for graph in graphs_of(node):
        for inner in nested_graphs(graph):
            for part in inner.node:
                yield from part.input
            for value in inner.output:
                yield value.name


def read_instead(node: onnx.NodeProto, other: Mapping[str, str]) -> None:
    """Has a node and the graphs inside it read the tensor that `other` has for one, if any."""
    node.input[:] = [other.get(name, name) for name in node.input]
    for graph in graphs_of(node):
        for inner in nested_graphs(graph):
            for part in inner.node:
                part.input[:] = [other.get(name, name) for name in part.input]
            for value in inner.output:
                value.name = other.get(value.name, value.name)


def set_all(values: Any, wanted: Iterable[Any]) -> None:
    """Gives a list within a message other contents, which must not come from the list itself."""
    del values[:]
    values.extend(wanted)


def copied(message: Any) -> Any:
    """A message that outlives its place in the list it comes from."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
