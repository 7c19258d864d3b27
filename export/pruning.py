"""Brings a graph into one order, without what no output needs and what is there twice.

tf2onnx leaves the nodes in an order that hangs on Python's hashes, and of equal nodes keeps any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import onnx

from keras_blocks.export.naming import content, nested_graphs, plain_name


def prune(graph: onnx.GraphProto) -> None:
    """Orders the nodes, and removes unneeded and equal ones, and weights likewise."""
    _merge_equal_weights(graph)
    for inner in reversed(list(nested_graphs(graph))):
        _order_nodes(inner)
        _merge_equal_nodes(inner)
    # Dead branches had to stay until here: merged nodes may be all that read a weight.
    _order_nodes(graph)
    _order_weights(graph)


def _order_nodes(graph: onnx.GraphProto) -> None:
    """Keeps the nodes that the outputs need, each behind those that it reads."""
    producers = {name: node for node in graph.node for name in node.output if name}
    ordered: dict[int, onnx.NodeProto] = {}
    stack = [(value.name, False) for value in reversed(graph.output)]
    while stack:
        name, read = stack.pop()
        node = producers.get(name)
        if node is None or id(node) in ordered:
            continue
        if read:
            ordered[id(node)] = node
        else:
            stack.append((name, True))
            stack += [(source, False) for source in reversed(list(_reads(node)))]
    nodes = [_copy(node) for node in ordered.values()]
    del graph.node[:]
    graph.node.extend(nodes)


def _merge_equal_nodes(graph: onnx.GraphProto) -> None:
    """Of nodes that do the same to the same, the first stays."""
    outputs = {value.name for value in graph.output}
    first: dict[bytes, onnx.NodeProto] = {}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        _read_instead(node, same)
        alone = node.op_type.startswith("Random") or outputs.intersection(node.output)
        equal = None if alone else first.setdefault(_computation(node), node)
        if equal is None or equal is node:
            kept.append(_copy(node))
        else:
            same.update(zip(node.output, equal.output, strict=True))
    del graph.node[:]
    graph.node.extend(kept)


def _merge_equal_weights(graph: onnx.GraphProto) -> None:
    outputs = {value.name for value in graph.output}
    first: dict[bytes, onnx.TensorProto] = {}
    same: dict[str, str] = {}
    for weight in sorted(graph.initializer, key=lambda weight: plain_name(weight.name)):
        equal = first.setdefault(content(weight), weight)
        if equal is not weight and weight.name not in outputs:
            same[weight.name] = equal.name
    for node in graph.node:
        _read_instead(node, same)


def _order_weights(graph: onnx.GraphProto) -> None:
    """Keeps the weights that are read, in the order in which they are."""
    weights = {weight.name: weight for weight in graph.initializer}
    read = [name for node in graph.node for name in _reads(node)]
    read += [value.name for value in graph.output]
    kept = [_copy(weights[name]) for name in dict.fromkeys(read) if name in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """What a node reads, and what the graphs inside it do, from within or from outside."""
    yield from node.input
    for inner in _inside(node):
        for part in inner.node:
            yield from part.input
        for value in inner.output:
            yield value.name


def _read_instead(node: onnx.NodeProto, same: Mapping[str, str]) -> None:
    node.input[:] = [same.get(name, name) for name in node.input]
    for inner in _inside(node):
        for part in inner.node:
            part.input[:] = [same.get(name, name) for name in part.input]
        for value in inner.output:
            value.name = same.get(value.name, value.name)


def _inside(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from nested_graphs(attribute.g)


def _computation(node: onnx.NodeProto) -> bytes:
    """All of a node but its name and those of its outputs, of which it says how many."""
    nameless = _copy(node)
    nameless.name = ""
    nameless.output[:] = ["y" if name else "" for name in node.output]
    return nameless.SerializeToString(deterministic=True)


def _copy(message: Any) -> Any:
    """A message that outlives its place in the list it comes from."""
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
