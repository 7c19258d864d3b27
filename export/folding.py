"""Computes once what an exported graph would compute from weights alone, each time it loads."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
from onnx.reference import ReferenceEvaluator

from keras_blocks.export.graphs import copied, set_all

# Operations that cut weights into parts or join them. None of them makes much out of little.
_REARRANGING = frozenset(
    ["Concat", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"]
)


def fold_weights(graph: onnx.GraphProto, opset: int) -> None:
    """Replaces rearranged weights by weights; the nodes must stand behind those that they read."""
    weights = {weight.name: weight for weight in graph.initializer}
    given = {value.name for value in (*graph.input, *graph.output)}
    kept = []
    for node in [copied(node) for node in graph.node]:
        named = [name for name in node.input if name]
        foldable = node.op_type in _REARRANGING and not given.intersection(node.output)
        if not foldable or not named or not all(name in weights for name in named):
            kept.append(node)
            continue
        for name, value in zip(node.output, _computed(node, weights, opset), strict=True):
            weights[name] = onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
            graph.initializer.append(weights[name])
    set_all(graph.node, kept)


def _computed(
    node: onnx.NodeProto, weights: dict[str, onnx.TensorProto], opset: int
) -> list[np.ndarray]:
    inputs = {name: onnx.numpy_helper.to_array(weights[name]) for name in node.input if name}
    symbols = [onnx.helper.make_empty_tensor_value_info(name) for name in inputs]
    results = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = onnx.helper.make_graph([node], "part", symbols, results)
    model = onnx.helper.make_model(alone, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return list(ReferenceEvaluator(model).run(None, inputs))
