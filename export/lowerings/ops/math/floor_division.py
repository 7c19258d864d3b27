"""Division that rounds down, of negative integers too.

tf2onnx takes ONNX's integer Div for it, which rounds towards zero: -1 // 2 became 0.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from keras_blocks.export.lowerings.registry import converts

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@converts("FloorDiv")
def convert_floor_div(context: Any, node: Any, name: str, args: Any) -> None:
    """Integers: (a - a mod b) / b, where the mod has the sign of b; floats: floor(a / b)."""
    (a, b), outputs = node.input, list(node.output)
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    context.remove_node(name)
    if to["dtypes"][0] in _FLOATS:
        quotient = context.make_node("Div", [a, b], **to)
        context.make_node("Floor", quotient.output, outputs=outputs, name=name, **to)
        return
    remainder = context.make_node("Mod", [a, b], **to)
    multiple = context.make_node("Sub", [a, remainder.output[0]], **to)
    context.make_node("Div", [multiple.output[0], b], outputs=outputs, name=name, **to)


@converts("FloorMod")
def convert_floor_mod(context: Any, node: Any, name: str, args: Any) -> None:
    """Integers: ONNX's Mod, which has the sign of b; floats: a - floor(a / b) b."""
    (a, b), outputs = node.input, list(node.output)
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    context.remove_node(name)
    if to["dtypes"][0] not in _FLOATS:
        context.make_node("Mod", [a, b], outputs=outputs, name=name, **to)
        return
    quotient = context.make_node("Div", [a, b], **to)
    floor = context.make_node("Floor", quotient.output, **to)
    multiple = context.make_node("Mul", [floor.output[0], b], **to)
    context.make_node("Sub", [a, multiple.output[0]], outputs=outputs, name=name, **to)
