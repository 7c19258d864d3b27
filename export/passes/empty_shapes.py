"""Reshapes to a size of 0, which TensorFlow means as it stands.

In ONNX a 0 in the shape copies the size of the input, unless the node says `allowzero`. tf2onnx
never says it, and uses the copying in constant shapes of its own; a shape that is computed while
the model runs holds sizes, and there a 0 is an empty axis.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.numpy_helper


def allow_empty_shapes(graph: onnx.GraphProto) -> None:
    """Marks the reshapes of this graph, and of those inside, whose shape is computed."""
    _mark(graph, {}, set())


def _mark(
    graph: onnx.GraphProto, outer: Mapping[str, onnx.NodeProto], outer_copying: set[str]
) -> None:
    producers = {**outer, **{name: node for node in graph.node for name in node.output}}
    # Constants by which a shape may copy a size of the input.
    copying = outer_copying | {
        weight.name
        for weight in graph.initializer
        if weight.data_type == onnx.TensorProto.INT64
        and len(weight.dims) <= 1
        and (onnx.numpy_helper.to_array(weight) == 0).any()
    }
    for node in graph.node:
        if node.op_type == "Reshape" and _is_sizes(node.input[1], producers, copying):
            node.attribute.append(onnx.helper.make_attribute("allowzero", 1))
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _mark(attribute.g, producers, copying)


def _is_sizes(shape: str, producers: Mapping[str, onnx.NodeProto], copying: set[str]) -> bool:
    producer = producers.get(shape)
    if producer is None:
        return False
    if producer.op_type == "Concat":
        return not any(part in copying for part in producer.input)
    return True
