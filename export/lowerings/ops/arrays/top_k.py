"""The largest elements and their places, which `sort`, `argsort`, `median` and others are made of.

tf2onnx has onnxruntime compare integers as float32, which tells none apart beyond 2^24.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts

_NATIVE = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)
_WIDER = {
    TensorProto.FLOAT16: TensorProto.FLOAT,
    TensorProto.INT8: TensorProto.INT32,
    TensorProto.UINT8: TensorProto.INT32,
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.UINT32: TensorProto.INT64,
    TensorProto.UINT64: TensorProto.INT64,
}


@converts("TopKV2")
def convert_top_k(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's TopK in the element type itself, or in a wider one that has all its numbers."""
    (given, k), (values, places) = node.input, node.output
    shapes, (dtype, place_dtype) = node.output_shapes, node.output_dtypes
    context.remove_node(name)
    count = cast(context, k, TensorProto.INT64)
    count = context.make_node("Reshape", [count, constant(context, name, [1])]).output[0]
    computed = dtype if dtype in _NATIVE else _WIDER[dtype]
    compared = cast(context, given, computed)
    # Numbers of 64 bits without a sign keep their order once the first half is below 0.
    shift = None
    if dtype == TensorProto.UINT64:
        shift = constant(context, name, np.iinfo(np.int64).min)
        compared = context.make_node("Add", [compared, shift], dtypes=[computed]).output[0]
    top = context.make_node(
        "TopK", [compared, count], output_count=2, dtypes=[computed, TensorProto.INT64]
    ).output
    found = top[0]
    if shift is not None:
        found = context.make_node("Add", [found, shift], dtypes=[computed]).output[0]
    _give(context, found, computed, values, shapes[0], dtype, name)
    _give(context, top[1], TensorProto.INT64, places, shapes[1], place_dtype, f"{name}/places")


def _give(
    context: Any, tensor: str, has: int, output: str, shape: Any, dtype: int, name: str
) -> None:
    to = {"outputs": [output], "shapes": [shape], "dtypes": [dtype], "name": name}
    if has == dtype:
        context.make_node("Identity", [tensor], **to)
    else:
        context.make_node("Cast", [tensor], {"to": dtype}, **to)
