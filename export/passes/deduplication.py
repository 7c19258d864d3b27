"""Brings a graph into one order, without what no output needs and what is there twice.

tf2onnx leaves the nodes in an order that hangs on Python's hashes, and of equal nodes keeps any.
"""

from __future__ import annotations

import onnx

from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, read_instead, reads, set_all
from keras_blocks.export.passes.naming import content, path_in, plain_name

# What is random differs, and what is filled with one value is cheap to make, and may be there to be
# written into in place, which only its one reader can do.
_ALONE = ("Random", "Expand")


def prune(graph: onnx.GraphProto, root: str = "") -> None:
    """Orders the nodes, and removes unneeded and equal ones, and weights likewise.

    Args:
        graph: the graph of a model.
        root: str, the scope of the model, which those of its layers begin with; none where the
            names are settled.
    """
    _take_out_weights(graph)
    _merge_equal_weights(graph, root)
    for inner in reversed(list(nested_graphs(graph))):
        if inner is not graph:
            _order_equal_outputs(inner)
        _order_nodes(inner)
        _merge_equal_nodes(inner)
    # Dead branches had to stay until here: merged nodes may be all that read a weight.
    _order_nodes(graph)
    _order_weights(graph)


def _order_equal_outputs(graph: onnx.GraphProto) -> None:
    """Of two outputs that are one tensor, one is a copy: tf2onnx makes it of either."""
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    places = {value.name: place for place, value in enumerate(graph.output)}
    for place, value in enumerate(graph.output):
        source = copies.get(value.name, "")
        if places.get(source, -1) > place:
            graph.output[places[source]].name, value.name = value.name, source
            places[source], places[graph.output[places[source]].name] = place, places[source]


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
            stack += [(source, False) for source in reversed(list(reads(node)))]
    nodes = [copied(node) for node in ordered.values()]
    set_all(graph.node, nodes)


def _merge_equal_nodes(graph: onnx.GraphProto) -> None:
    """Of nodes that do the same to the same, the first stays."""
    outputs = {value.name for value in graph.output}
    first: dict[bytes, onnx.NodeProto] = {}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        read_instead(node, same)
        alone = node.op_type.startswith(_ALONE) or outputs.intersection(node.output)
        equal = None if alone else first.setdefault(_computation(node), node)
        if equal is None or equal is node:
            kept.append(copied(node))
        else:
            same.update(zip(node.output, equal.output, strict=True))
    set_all(graph.node, kept)


def _take_out_weights(graph: onnx.GraphProto) -> None:
    """Moves the weights of inner graphs to the outermost, where equal ones can be one."""
    taken = {weight.name for weight in graph.initializer}
    for inner in list(nested_graphs(graph))[1:]:
        # What a graph gives must be its own.
        outputs = {value.name for value in inner.output}
        own, same = [], {}
        for weight in [copied(weight) for weight in inner.initializer]:
            if weight.name in outputs:
                own.append(weight)
                continue
            if weight.name in taken:
                same[weight.name] = weight.name = f"{weight.name}__{len(taken)}"
            taken.add(weight.name)
            graph.initializer.append(weight)
        for node in inner.node:
            read_instead(node, same)
        set_all(inner.initializer, own)


def _merge_equal_weights(graph: onnx.GraphProto, root: str) -> None:
    """Of equal weights the one stays whose name comes first."""
    outputs = {value.name for value in graph.output}
    first: dict[bytes, onnx.TensorProto] = {}
    same: dict[str, str] = {}
    for weight in sorted(graph.initializer, key=lambda weight: _place(weight.name, root)):
        equal = first.setdefault(content(weight), weight)
        if equal is not weight and weight.name not in outputs:
            same[weight.name] = equal.name
    for node in graph.node:
        read_instead(node, same)


def _place(name: str, root: str) -> tuple[str, str]:
    """What sorts names. TensorFlow numbers its functions, on from export to export, and not always
    says which one a constant was inlined from: it must not count.
    """
    return path_in(root, name) if root else "", plain_name(name)


def _order_weights(graph: onnx.GraphProto) -> None:
    """Keeps the weights that are read, in the order in which they are."""
    weights = {weight.name: weight for weight in graph.initializer}
    read = [name for node in graph.node for name in reads(node)]
    read += [value.name for value in graph.output]
    kept = [copied(weights[name]) for name in dict.fromkeys(read) if name in weights]
    set_all(graph.initializer, kept)


def _computation(node: onnx.NodeProto) -> bytes:
    """All of a node but its name and those of its outputs, of which it says how many."""
    nameless = copied(node)
    nameless.name = nameless.doc_string = ""
    nameless.domain = node.domain  # left out it is the same, but not the same bytes
    nameless.output[:] = ["y" if name else "" for name in node.output]
    return nameless.SerializeToString(deterministic=True)
