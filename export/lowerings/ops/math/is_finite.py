"""Whether numbers are finite or infinite, in half precision too.

ONNX's IsInf takes float16 since opset 20 only; every float16 is the same number as a float32.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from keras_blocks.export.lowerings.registry import converts


@converts("IsInf", "IsFinite")
def convert_is_finite(context: Any, node: Any, name: str, args: Any) -> None:
    """IsInf; a number is finite when it is neither infinite nor NaN."""
    (given,), outputs, finite = node.input, list(node.output), node.type == "IsFinite"
    to = {"shapes": node.output_shapes, "dtypes": [TensorProto.BOOL]}
    if context.get_dtype(given) == TensorProto.FLOAT16:
        given = context.make_node("Cast", [given], attr={"to": TensorProto.FLOAT}).output[0]
    context.remove_node(name)
    if not finite:
        context.make_node("IsInf", [given], outputs=outputs, name=name, **to)
        return
    infinite = context.make_node("IsInf", [given], **to).output[0]
    undefined = context.make_node("IsNaN", [given], **to).output[0]
    either = context.make_node("Or", [infinite, undefined], **to).output[0]
    context.make_node("Not", [either], outputs=outputs, name=name, **to)
