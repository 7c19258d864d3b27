"""No converter may pass integers through floats on their way to integers.

A float32 has all integers up to 2^24, and tf2onnx casts to it wherever an early ONNX had floats
alone: a file sorts, compares or pads other numbers than the model. What is known of it is mended in
`lowerings`; whatever else does so is refused here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import AS_TENSORFLOW
from keras_blocks.export.lowerings.ops.sizes import INTEGERS, are_small

_BITS = {TensorProto.FLOAT16: 11, TensorProto.FLOAT: 24, TensorProto.DOUBLE: 53}


def refuse_rounded_integers(converted: Any, graph_def: Any) -> None:
    """Raises `ExportError` where tf2onnx put a cast to floats between integers.

    Args:
        converted: the graph that tf2onnx made, before its optimizers.
        graph_def: the TensorFlow graph that it made it of, whose own casts are the model's.
    """
    own = {node.name for node in graph_def.node}
    for function in graph_def.library.function:
        names = {node.name for node in function.node_def}
        # Within a branch or a loop tf2onnx puts the name of the function before.
        own |= names | {f"{function.signature.name}_{name}" for name in names}
    for graph in _graphs(converted):
        for node in graph.get_nodes():
            if node.name in own or not _rounds(graph, node):
                continue
            reached = _integer_behind(graph, node, own)
            if reached is not None:
                raise ExportError(
                    f"node '{reached}' would pass integers through floats, which do not have all "
                    "of them. Compute it before the model, or cast the integers to floats in the "
                    "model, where that is meant."
                )


def _rounds(graph: Any, node: Any) -> bool:
    """Whether a node makes floats of integers that they may not have."""
    if node.type != "Cast" or AS_TENSORFLOW in node.name:
        return False
    bits = INTEGERS.get(graph.get_dtype(node.input[0]), 0)
    exact = _BITS.get(node.get_attr_value("to"))
    return exact is not None and bits > exact and not are_small(graph, node.input[0])


def _integer_behind(graph: Any, node: Any, own: set[str]) -> str | None:
    """The first node behind a cast that gives integers or truths; the model's own casts may."""
    stack, seen = list(node.output), set[str]()
    while stack:
        for reader in graph.find_output_consumers(stack.pop()):
            asks_sizes = reader.type in ("Shape", "Size")  # and no element
            if asks_sizes or reader.name in seen or (reader.type == "Cast" and reader.name in own):
                continue
            seen.add(reader.name)
            for output in reader.output:
                dtype = graph.get_dtype(output)
                if dtype in INTEGERS or dtype == TensorProto.BOOL:
                    return str(reader.name)
                stack.append(output)
    return None


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.get_nodes():
        for body in (node.get_body_graphs() or {}).values():
            yield from _graphs(body)
