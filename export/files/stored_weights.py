"""Weights that are stored small and computed with in float32.

    W = W.small                              float16
    W = W.small * scale                      int8, one scale for each row, column or gate

The casts and products are standard operators of constants: onnxruntime computes them once, when it
loads the file. So runs take as long as before and every operator can have it, in loops and branches
too.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, set_all

_LARGEST = 127.0  # of int8, kept symmetric
_MOST_SCALES = 1 / 8  # of a weight's elements; more would not make it small


def store_weights(model: onnx.ModelProto, dtype: str, min_elements: int) -> dict[str, int]:
    """Stores the large float32 weights of a model as float16 or int8, in place.

    Returns:
        Op -> how many nodes read such a weight.
    """
    stored: set[str] = set()
    for graph in nested_graphs(model.graph):
        outer = {value.name for value in (*graph.input, *graph.output)}
        nodes, weights = [], []
        for weight in graph.initializer:
            large = int(np.prod(weight.dims, dtype="int64")) >= min_elements
            plain = weight.data_type == onnx.TensorProto.FLOAT and weight.name not in outer
            small = _stored(weight, dtype) if large and plain else None
            if small is None:
                weights.append(copied(weight))
            else:
                nodes += small[0]
                weights += small[1]
                stored.add(weight.name)
        set_all(graph.initializer, weights)
        set_all(graph.node, [*nodes, *map(copied, graph.node)])
    counts: dict[str, int] = {}
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            if stored.intersection(node.input):
                counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return counts


def _stored(
    weight: onnx.TensorProto, dtype: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]] | None:
    """The nodes and weights that give a weight; None for one that would not survive it."""
    values = onnx.numpy_helper.to_array(weight)
    name, to = weight.name, onnx.TensorProto.FLOAT
    if dtype == "float16":
        with np.errstate(over="ignore"):
            small = values.astype("float16")
        if not np.isfinite(small).all():
            return None
        cast = onnx.helper.make_node("Cast", [f"{name}.small"], [name], f"{name}.cast", to=to)
        return [cast], [onnx.numpy_helper.from_array(small, f"{name}.small")]
    if not np.isfinite(values).all():
        return None
    small, scale = _quantised(values)
    nodes = [
        onnx.helper.make_node("Cast", [f"{name}.small"], [f"{name}.whole"], f"{name}.cast", to=to),
        onnx.helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name], f"{name}.times"),
    ]
    parts = {"small": small, "scale": scale}
    return nodes, [onnx.numpy_helper.from_array(v, f"{name}.{part}") for part, v in parts.items()]


def _quantised(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and their scales, along the axis that loses least."""
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    axes = [a for a in range(values.ndim) if values.shape[a] <= values.size * _MOST_SCALES]
    for axis in (None, *axes):
        others = None if axis is None else tuple(a for a in range(values.ndim) if a != axis)
        largest = np.abs(values).max(axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / _LARGEST, 1.0).astype("float32")
        small = np.rint(values / scale).astype("int8")
        loss = float(np.square(small * scale - values).mean())
        if best is None or loss < best[0]:
            best = loss, small, scale
    assert best is not None
    return best[1], best[2]
