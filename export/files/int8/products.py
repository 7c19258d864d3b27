"""Which processors the integer products of a file are right on.

x86 processors without VNNI multiply uint8 by int8 with an instruction (`VPMADDUBSW`) that adds the
products in pairs in 16 bits, and cuts off what is beyond 32767. No pair is, whatever goes in, where
the weights have seven bits:

    255 * 64 + 255 * 64 = 32640

uint8 weights are multiplied in 16 bits and added in 32: exact everywhere, and slower.

Reference: https://www.intel.com/content/www/us/en/docs/intrinsics-guide, `_mm256_maddubs_epi16`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import onnx.numpy_helper

from keras_blocks.export.onnx_io.graphs import nested_graphs

LARGEST_EVERYWHERE = 64  # of the weights whose products cannot saturate
# By op, where its int8 weights are: ONNX's own, and those that onnxruntime fuses or adds.
_INTEGER_OPS: Mapping[str, tuple[int, ...]] = {
    "ConvInteger": (1,),
    "DynamicQuantizeLSTM": (1, 2),
    "DynamicQuantizeMatMul": (1,),
    "MatMulInteger": (1,),
    "MatMulIntegerToFloat": (1,),
    "QAttention": (1,),
    "QGemm": (3,),
    "QLinearConv": (3,),
    "QLinearMatMul": (3,),
}
# These onnxruntime computes in integers where both sides come out of a DequantizeLinear.
_FLOAT_OPS = frozenset({"Conv", "Gemm", "MatMul"})


def processors_of(model: onnx.ModelProto) -> str | None:
    """The key of `contract.PROCESSORS` for a model; None if no product in it is one of integers."""
    largest = list(_largest_weights(model))
    if not largest:
        return None
    return "any" if max(largest) <= LARGEST_EVERYWHERE else "vnni"


def _largest_weights(model: onnx.ModelProto) -> Iterator[int]:
    """The greatest magnitude of the weights of each integer product; 0 of those in uint8."""
    graphs = list(nested_graphs(model.graph))
    weights = {weight.name: weight for graph in graphs for weight in graph.initializer}
    floats = {
        node.output[0]: node.input[0]
        for graph in graphs
        for node in graph.node
        if node.op_type == "DequantizeLinear"
    }
    for graph in graphs:
        for node in graph.node:
            for name in _integer_inputs(node, floats):
                weight = weights.get(name)
                if weight is not None:
                    yield _magnitude(weight)


def _integer_inputs(node: onnx.NodeProto, floats: Mapping[str, str]) -> list[str]:
    if node.op_type in _INTEGER_OPS:
        return [node.input[place] for place in _INTEGER_OPS[node.op_type]]
    if node.op_type in _FLOAT_OPS and {*node.input[:2]} <= set(floats):
        return [floats[node.input[1]]]
    return []


def _magnitude(weight: onnx.TensorProto) -> int:
    if weight.data_type != onnx.TensorProto.INT8:
        return 0
    return int(np.abs(onnx.numpy_helper.to_array(weight).astype("int16")).max(initial=0))
