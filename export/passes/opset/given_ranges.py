"""Ranges that a graph gives and gathers by too, which onnxruntime loses.

Up to 1.30 it makes a slice of `Gather(x, Range(...))`, and removes the range although a branch or
the model gives it. Given as a copy the range has two readers, and stays.
"""

from __future__ import annotations

import onnx
import onnx.helper

from keras_blocks.export.onnx_io.graphs import nested_graphs, read_instead


def give_copies_of_ranges(graph: onnx.GraphProto) -> None:
    """Has a graph, and those inside, give a copy of each range that a Gather of theirs reads."""
    for inner in nested_graphs(graph):
        given = {value.name for value in inner.output}
        given &= {node.input[1] for node in inner.node if node.op_type == "Gather"}
        for node in list(inner.node):
            if node.op_type == "Range" and node.output[0] in given:
                _give_copy(inner, node)


def _give_copy(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    given = node.output[0]
    made = f"{given}/range"
    for reader in graph.node:
        read_instead(reader, {given: made})
    node.output[0] = made
    graph.node.append(onnx.helper.make_node("Identity", [made], [given], f"{given}/Identity"))
