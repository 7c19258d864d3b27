"""Powers of integers, exactly as TensorFlow has them: modulo the element type.

onnxruntime computes all but squares and cubes as float64, which rounds beyond 2^53 and stops at the
end of the element type. Here, by the binary digits of the exponent,

    x^e = product of x^(2^i) over the digits i of e that are 1
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx import utils

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import (
    cast,
    constant,
    convert_as_tf2onnx,
    result_of,
)
from keras_blocks.export.lowerings.ops.sizes import INTEGERS
from keras_blocks.export.lowerings.registry import converts

_MOST_DIGITS = 63
_WHOLE, _TRUTH = TensorProto.INT64, TensorProto.BOOL


@converts("Pow")
def convert_pow(context: Any, node: Any, name: str, args: Any) -> None:
    """Floats: ONNX's Pow; integers: squares multiplied, in a loop where the exponent is given."""
    dtype = node.output_dtypes[0]
    if dtype not in INTEGERS:
        convert_as_tf2onnx(context, node)
        return
    base, exponent = node.input
    known = _number(context, exponent)
    to = result_of(node)
    context.remove_node(name)
    base = cast(context, base, _WHOLE)
    if known is not None and known > 0:
        power = _known_power(context, base, known)
    else:
        power = _power(context, to, base, cast(context, exponent, _WHOLE))
    if dtype == _WHOLE:
        context.make_node("Identity", [power], **to)
    else:
        context.make_node("Cast", [power], {"to": dtype}, **to)


def _number(context: Any, tensor: str) -> int | None:
    producer = context.get_node_by_output(tensor)
    if producer is None or not producer.is_const():
        return None
    values = np.asarray(producer.get_tensor_value(as_list=False))
    return int(values) if values.ndim == 0 else None


def _known_power(context: Any, base: str, exponent: int) -> str:
    result, square = "", base
    while exponent:
        if exponent % 2:
            both = [result, square]
            result = context.make_node("Mul", both, dtypes=[_WHOLE]).output[0] if result else square
        exponent //= 2
        if exponent:
            square = context.make_node("Mul", [square, square], dtypes=[_WHOLE]).output[0]
    return result


def _power(context: Any, to: dict[str, Any], base: str, exponent: str) -> str:
    """A loop over the digits: what is left of the exponent, the square, and the product so far."""
    name, (shape,) = to["name"], to["shapes"]
    if shape is None:
        raise ExportError(f"node '{name}' raises integers of unknown rank to a power")
    body = context.create_new_graph_with_same_config()
    body.parent_graph = context
    given = [utils.make_name(f"{name}/{part}") for part in ("i", "more", "e", "square", "product")]
    for tensor, dtype in zip(given, (_WHOLE, _TRUTH, _WHOLE, _WHOLE, _WHOLE), strict=True):
        body.add_graph_input(tensor, dtype, [] if tensor in given[:2] else shape)
    _, _, left, square, product = given

    def do(op_type: str, *parts: str, dtype: int = _WHOLE, **options: Any) -> str:
        return body.make_node(op_type, list(parts), options, dtypes=[dtype]).output[0]

    two, zero = (constant(body, name, value) for value in (2, 0))
    odd = do("Cast", do("Mod", left, two), dtype=_TRUTH, to=_TRUTH)
    product = do("Where", odd, do("Mul", product, square), product)
    square, left = do("Mul", square, square), do("Div", left, two)
    more = do("Greater", do("ReduceMax", left, keepdims=0), zero, dtype=_TRUTH)
    for tensor, dtype in ((more, _TRUTH), (left, _WHOLE), (square, _WHOLE), (product, _WHOLE)):
        sizes = [] if tensor == more else shape
        copy = body.make_node("Identity", [tensor], dtypes=[dtype], shapes=[sizes]).output[0]
        body.add_graph_output(copy, dtype, sizes)
    both = context.make_node("Add", [base, exponent], dtypes=[_WHOLE]).output[0]
    sizes = context.make_node("Shape", [both]).output[0]
    start = [
        context.make_node("Expand", [number, sizes], dtypes=[_WHOLE], shapes=[shape]).output[0]
        for number in (exponent, base, constant(context, name, 1))
    ]
    begin = [constant(context, name, _MOST_DIGITS), constant(context, name, True, bool)]
    loop = context.make_node(
        "Loop",
        [*begin, *start],
        output_count=3,
        dtypes=[_WHOLE] * 3,
        shapes=[shape] * 3,
        branches={"body": body},
    )
    return loop.output[2]
