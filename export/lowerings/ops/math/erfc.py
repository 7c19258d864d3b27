"""The complement of the error function, which exact gelu computes: erfc(x) = 1 - erf(x)."""

from __future__ import annotations

from typing import Any

from tf2onnx import utils

from keras_blocks.export.lowerings.ops.node_builder import constant
from keras_blocks.export.lowerings.registry import converts


@converts("Erfc")
def convert_erfc(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX has no Erfc, and tf2onnx leaves the node as it is."""
    given, output = node.input[0], node.output[0]
    shape, dtype = context.get_shape(output), context.get_dtype(output)
    context.remove_node(name)
    one = constant(context, name, 1, utils.map_onnx_to_numpy_type(dtype))
    erf = context.make_node("Erf", [given], shapes=[shape], dtypes=[dtype]).output[0]
    context.make_node("Sub", [one, erf], outputs=[output], shapes=[shape], dtypes=[dtype])
