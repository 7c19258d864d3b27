"""Division that rounds down, of negative integers too.

tf2onnx takes ONNX's integer Div for it, which rounds towards zero: -1 // 2 became 0.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from keras_blocks.export.lowerings.ops.sizes import are_small
from keras_blocks.export.lowerings.registry import converts

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_UNSIGNED = (TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64)


@converts("FloorDiv")
def convert_floor_div(context: Any, node: Any, name: str, args: Any) -> None:
    """Floats: floor(a / b). Sizes: (a - a mod b) / b. Other integers: one less than the quotient
    towards zero where that was rounded up, for there nothing is too large for the element type."""
    (a, b), outputs = node.input, list(node.output)
    small, divisor = are_small(context, a), context.get_node_by_output(b)
    positive = divisor.is_const() and bool((divisor.get_tensor_value(as_list=False) > 0).all())
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    context.remove_node(name)
    if to["dtypes"][0] in _FLOATS:
        quotient = context.make_node("Div", [a, b], **to)
        context.make_node("Floor", quotient.output, outputs=outputs, name=name, **to)
        return
    if small:
        remainder = context.make_node("Mod", [a, b], **to)
        multiple = context.make_node("Sub", [a, remainder.output[0]], **to)
        context.make_node("Div", [multiple.output[0], b], outputs=outputs, name=name, **to)
        return
    quotient = context.make_node("Div", [a, b], **to).output[0]
    if to["dtypes"][0] in _UNSIGNED:
        context.make_node("Identity", [quotient], outputs=outputs, name=name, **to)
        return
    truth = {"shapes": to["shapes"], "dtypes": [TensorProto.BOOL]}
    product = context.make_node("Mul", [quotient, b], **to).output[0]
    if positive:
        over = context.make_node("Less", [a, product], **truth).output[0]
    else:
        # What is left over has the sign of b, unless the quotient was rounded up.
        left = context.make_node("Mod", [a, b], **to).output[0]
        whole = context.make_node("Add", [product, left], **to).output[0]
        exact = context.make_node("Equal", [whole, a], **truth).output[0]
        over = context.make_node("Not", [exact], **truth).output[0]
    one = context.make_node("Cast", [over], {"to": to["dtypes"][0]}, **to).output[0]
    context.make_node("Sub", [quotient, one], outputs=outputs, name=name, **to)


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
