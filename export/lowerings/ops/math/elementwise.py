"""Comparison, selection, expm1, log1p and the logarithm, exactly.

tf2onnx compares integers as floats, which is wrong beyond 2^24, and selects by multiplying with 0
and 1, which turns the infinity that was not selected into NaN. onnxruntime needs neither any more.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto
from tf2onnx import utils

from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts

_COMPARISONS = {
    "Less": ("Less", False),
    "LessEqual": ("LessOrEqual", False),
    "Greater": ("Greater", False),
    "GreaterEqual": ("GreaterOrEqual", False),
    "Equal": ("Equal", False),
    "NotEqual": ("Equal", True),
}
# onnxruntime's Where does not know them on CPU; they are exact in the other type, and back.
_WIDER = {
    TensorProto.INT16: TensorProto.INT32,
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.UINT32: TensorProto.INT64,
    TensorProto.UINT64: TensorProto.INT64,
    TensorProto.BOOL: TensorProto.UINT8,
}


@converts(*_COMPARISONS)
def convert_comparison(context: Any, node: Any, name: str, args: Any) -> None:
    """One ONNX comparison of the operands as they are."""
    op_type, negated = _COMPARISONS[node.type]
    given, outputs, shapes = list(node.input), list(node.output), node.output_shapes
    to = {"dtypes": [TensorProto.BOOL], "shapes": shapes}
    if context._is_subgraph and context.get_dtype(given[0]) == TensorProto.INT32:
        # tf2onnx counts the iterations of a loop in int64 and keeps int32 for the limit.
        given = [cast(context, x, TensorProto.INT64) for x in given]
    context.remove_node(name)
    if not negated:
        context.make_node(op_type, given, outputs=outputs, name=name, **to)
        return
    compared = context.make_node(op_type, given, **to)
    context.make_node("Not", compared.output, outputs=outputs, name=name, **to)


@converts("SelectV2")
def convert_select(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's Where."""
    condition, *given = node.input
    outputs, shapes, dtypes = list(node.output), node.output_shapes, node.output_dtypes
    dtype = dtypes[0]
    context.remove_node(name)
    if dtype not in _WIDER:
        context.make_node(
            "Where", [condition, *given], outputs=outputs, name=name, shapes=shapes, dtypes=dtypes
        )
        return
    wider = _WIDER[dtype]
    given = [cast(context, x, wider) for x in given]
    chosen = context.make_node("Where", [condition, *given], shapes=shapes, dtypes=[wider])
    context.make_node(
        "Cast",
        chosen.output,
        attr={"to": dtype},
        outputs=outputs,
        name=name,
        shapes=shapes,
        dtypes=dtypes,
    )


@converts("Expm1")
def convert_expm1(context: Any, node: Any, name: str, args: Any) -> None:
    """exp(x) - 1 = tanh(x / 2) (exp(x) + 1), which keeps its digits near 0."""
    given, outputs = node.input[0], list(node.output)
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    context.remove_node(name)
    numpy_type = utils.map_onnx_to_numpy_type(to["dtypes"][0])
    half = constant(context, name, 0.5, numpy_type)
    one = constant(context, name, 1, numpy_type)
    halved = context.make_node("Mul", [given, half], **to).output[0]
    tanh = context.make_node("Tanh", [halved], **to).output[0]
    exp = context.make_node("Exp", [given], **to).output[0]
    above = context.make_node("Add", [exp, one], **to).output[0]
    context.make_node("Mul", [tanh, above], outputs=outputs, name=name, **to)


@converts("Log1p")
def convert_log1p(context: Any, node: Any, name: str, args: Any) -> None:
    """log(1 + x), corrected by x / ((1 + x) - 1): the digits that 1 + x has lost near 0."""
    given, outputs = node.input[0], list(node.output)
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    truth = {"shapes": to["shapes"], "dtypes": [TensorProto.BOOL]}
    context.remove_node(name)
    numpy_type = utils.map_onnx_to_numpy_type(to["dtypes"][0])
    one, zero = (constant(context, name, value, numpy_type) for value in (1, 0))
    above = context.make_node("Add", [one, given], **to).output[0]
    kept = context.make_node("Sub", [above, one], **to).output[0]
    ratio = context.make_node("Div", [given, kept], **to).output[0]
    # Infinity by infinity.
    whole = context.make_node("Equal", [kept, given], **truth).output[0]
    ratio = context.make_node("Where", [whole, one, ratio], **to).output[0]
    log = context.make_node("Log", [above], **to).output[0]
    corrected = context.make_node("Mul", [log, ratio], **to).output[0]
    # Beside 1 nothing is left of it, and log(1 + x) is x.
    lost = context.make_node("Equal", [kept, zero], **truth).output[0]
    context.make_node("Where", [lost, given, corrected], outputs=outputs, name=name, **to)


@converts("Log")
def convert_log(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's Log, which the node is already; tf2onnx refuses float16 and rounds float64."""
