"""Computes once what an exported graph would compute from weights alone, each time it loads."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
from onnx.reference import ReferenceEvaluator

from keras_blocks.export.onnx_io.external_data import Apart
from keras_blocks.export.onnx_io.graphs import copied, set_all

# Operations that cut weights into parts or join them. None of them makes much out of little.
_REARRANGING = frozenset(
    ["Cast", "Concat", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"]
)


def fold_weights(graph: onnx.GraphProto, opset: int, apart: Apart) -> None:
    """Replaces rearranged weights by weights; the nodes must stand behind those that they read.

    What is made of weights in `apart` goes there.
    """
    weights = {weight.name: weight for weight in graph.initializer}
    given = {value.name for value in (*graph.input, *graph.output)} - apart.keys()
    kept = []
    for node in [copied(node) for node in graph.node]:
        named = [name for name in node.input if name]
        foldable = node.op_type in _REARRANGING and not given.intersection(node.output)
        if not foldable or not named or not all(n in weights or n in apart for n in named):
            kept.append(node)
            continue
        values = {
            name: apart[name] if name in apart else onnx.numpy_helper.to_array(weights[name])
            for name in named
        }
        for name, result in zip(node.output, _computed(node, values, opset), strict=True):
            value = np.ascontiguousarray(result)
            if apart.keys() & values:
                apart[name] = value
                continue
            weights[name] = onnx.numpy_helper.from_array(value, name)
            graph.initializer.append(weights[name])
    set_all(graph.node, kept)


def _computed(node: onnx.NodeProto, inputs: dict[str, np.ndarray], opset: int) -> list[np.ndarray]:
    symbols = [onnx.helper.make_empty_tensor_value_info(name) for name in inputs]
    results = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
    alone = onnx.helper.make_graph([node], "part", symbols, results)
    model = onnx.helper.make_model(alone, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return list(ReferenceEvaluator(model).run(None, inputs))
