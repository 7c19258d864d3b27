"""A model of the instruction that x86 processors without VNNI multiply uint8 by int8 with.

VPMADDUBSW adds the products in pairs and keeps the sum between -32768 and 32767.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from keras_blocks.export.onnx_io.graphs import nested_graphs

LARGEST_SUM = 32767  # of the 16 bits that a pair of products is added in
# Where the weights are that onnxruntime multiplies in integers, and which of their axes are summed.
PLACES = {"MatMulInteger": (1,), "ConvInteger": (1,), "DynamicQuantizeLSTM": (1, 2)}
BEHIND_SCALES = {"MatMul", "Gemm", "Conv"}
IN_FLOAT = {"Cast", "ConvTranspose", "Gather"}  # int8 only as they are stored


def multiply_in_pairs(inputs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """inputs @ weights, uint8 [rows, k] and int8 [k, columns], as the instruction gives it."""
    assert (inputs.dtype, weights.dtype) == ("uint8", "int8")
    products = inputs[:, :, None].astype("int64") * weights
    if products.shape[1] % 2:
        products = np.pad(products, [(0, 0), (0, 1), (0, 0)])
    pairs = products[:, 0::2] + products[:, 1::2]
    return np.clip(pairs, -32768, 32767).sum(1)


def worst_pair(weights: np.ndarray) -> int:
    """The most that two products of a column come to, whichever two and whatever the inputs."""
    largest = 0
    for signed in (weights.astype("int64"), -weights.astype("int64")):
        two = np.sort(np.maximum(signed, 0), axis=0)[-2:]
        largest = max(largest, 255 * int(two.sum(0).max(initial=0)))
    return largest


def int8_products(model: onnx.ModelProto) -> Iterator[tuple[str, np.ndarray]]:
    """Every product of uint8 by int8 in a model: its op, and its weights as [k, columns].

    An int8 weight that goes elsewhere than the tests know of is a fault.
    """
    graphs = list(nested_graphs(model.graph))
    nodes = [node for graph in graphs for node in graph.node]
    weights = {
        weight.name: numpy_helper.to_array(weight)
        for graph in graphs
        for weight in graph.initializer
        if weight.data_type == onnx.TensorProto.INT8 and len(weight.dims) > 1
    }
    scaled = {n.output[0]: n.input[0] for n in nodes if n.op_type == "DequantizeLinear"}
    for node in nodes:
        for place, name in enumerate(node.input):
            weight = weights.get(scaled.get(name, name))
            if weight is None or node.op_type in {"DequantizeLinear", *IN_FLOAT}:
                continue
            if name in scaled:
                assert node.op_type in BEHIND_SCALES, node.op_type
                assert place == 1
            elif place not in PLACES[node.op_type]:
                continue  # a zero point
            if "Conv" in node.op_type:
                yield node.op_type, weight.reshape(len(weight), -1).T
            else:
                for matrix in weight.reshape(-1, *weight.shape[-2:]):
                    yield node.op_type, matrix


def worst_pair_of(model: onnx.ModelProto) -> int:
    """The most that a pair of products in a model comes to."""
    return max((worst_pair(weights) for _, weights in int8_products(model)), default=0)
