"""Sums into places of a tensor, the way a tree's children reach their parent.

onnxruntime adds no float16 on CPU, and before opset 16 ONNX has no such operation.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import converts

OLDEST_OPSET = 16


@converts("TensorScatterAdd")
def convert_tensor_scatter_add(context: Any, node: Any, name: str, args: Any) -> None:
    """ScatterND with a sum; float16 is summed as float32."""
    if context.opset < OLDEST_OPSET:
        raise ExportError(
            f"node '{name}' adds into a tensor, as trees do, which ONNX can since opset "
            f"{OLDEST_OPSET}. Choose opset_version={OLDEST_OPSET} or more."
        )
    (data, indices, updates), outputs = node.input, list(node.output)
    shapes, (dtype,) = node.output_shapes, node.output_dtypes
    context.remove_node(name)

    def cast(given: str, to: int) -> str:
        return context.make_node("Cast", [given], attr={"to": to}).output[0]

    given = [data, cast(indices, TensorProto.INT64), updates]
    attr = {"reduction": "add"}
    if dtype != TensorProto.FLOAT16:
        context.make_node(
            "ScatterND", given, attr, outputs=outputs, name=name, shapes=shapes, dtypes=[dtype]
        )
        return
    single = TensorProto.FLOAT
    given = [cast(data, single), given[1], cast(updates, single)]
    total = context.make_node("ScatterND", given, attr, shapes=shapes, dtypes=[single]).output[0]
    context.make_node(
        "Cast", [total], {"to": dtype}, outputs=outputs, name=name, shapes=shapes, dtypes=[dtype]
    )
