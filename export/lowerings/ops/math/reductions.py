"""Sums, products and means of integers, exactly as TensorFlow has them: modulo the element type.

onnxruntime adds and multiplies integers as float64, which rounds beyond 2^53, and stops at the end
of the element type where TensorFlow goes round.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import (
    AS_TENSORFLOW,
    cast,
    constant,
    convert_as_tf2onnx,
    result_of,
)
from keras_blocks.export.lowerings.ops.sizes import INTEGERS, are_small
from keras_blocks.export.lowerings.registry import converts
from keras_blocks.size_sums import OF_SIZES

_PART = 2**22  # a sum of 2^31 numbers below it is exact in float64
_WHOLE = (TensorProto.INT32, TensorProto.INT64)
_MANY = (TensorProto.INT64, TensorProto.UINT64)
_OLDEST_OPSET = 16


@converts("Sum")
def convert_sum(context: Any, node: Any, name: str, args: Any) -> None:
    """Floats and small integers: ReduceSum; integers of 64 bits: their parts, each summed."""
    given, dtype = node.input[0], node.output_dtypes[0]
    of_sizes = f"/{OF_SIZES}" in name
    if dtype not in INTEGERS or (dtype in _WHOLE and (of_sizes or are_small(context, given))):
        convert_as_tf2onnx(context, node)
        return
    to, axes, keepdims = _taken_out(context, node)
    total = _sum(context, name, given, axes, keepdims)
    _give(context, total, to)


@converts("Mean")
def convert_mean(context: Any, node: Any, name: str, args: Any) -> None:
    """Of integers the sum by the count, towards zero.

    A mean over nothing is NaN in TensorFlow; onnxruntime gives 0. So where the data decides how
    much there is, it is asked.
    """
    given, dtype = node.input[0], node.output_dtypes[0]
    if dtype not in INTEGERS:
        _convert_float_mean(context, node, name)
        return
    to, axes, keepdims = _taken_out(context, node)
    total = _sum(context, name, given, axes, keepdims)
    shape = context.make_node("Shape", [given]).output[0]
    sizes = context.make_node("Gather", [shape, axes]).output[0]
    count = context.make_node("ReduceProd", [sizes], {"keepdims": 0}).output[0]
    mean = context.make_node("Div", [total, count], dtypes=[TensorProto.INT64]).output[0]
    _give(context, mean, to)


@converts("Prod")
def convert_prod(context: Any, node: Any, name: str, args: Any) -> None:
    """Floats and sizes of tensors: ReduceProd; other integers are multiplied one by one."""
    given, dtype = node.input[0], node.output_dtypes[0]
    if dtype not in INTEGERS or (dtype in _WHOLE and are_small(context, given, only_sizes=True)):
        convert_as_tf2onnx(context, node)
        return
    rank, constant_axes = context.get_rank(given), node.inputs[1]
    if rank is None or not constant_axes.is_const() or context.opset < _OLDEST_OPSET:
        raise ExportError(
            f"node '{name}' multiplies integers along axes, which onnxruntime does as float64. "
            "To multiply them exactly they, and the number of axes, must be known, and the opset "
            f"be {_OLDEST_OPSET} or more. Cast the integers to floats, or give the axes as numbers."
        )
    axes = sorted({int(a) % rank for a in np.ravel(constant_axes.get_tensor_value(as_list=False))})
    to, _, keepdims = _taken_out(context, node)
    product = cast(context, given, TensorProto.INT64)
    one, zero = (_filled(value) for value in (1, 0))
    for axis in axes:
        shape = context.make_node("Shape", [product]).output[0]
        single = [constant(context, name, [number]) for number in (axis, 1)]
        left = context.make_node("ScatterElements", [shape, *single]).output[0]
        ones = context.make_node("ConstantOfShape", [left], {"value": one}).output[0]
        first = context.make_node("ConstantOfShape", [shape], {"value": zero}).output[0]
        product = context.make_node(
            "ScatterElements",
            [ones, first, product],
            {"axis": axis, "reduction": "mul"},
            dtypes=[TensorProto.INT64],
        ).output[0]
    if axes and not keepdims:
        product = context.make_node(
            "Squeeze", [product, constant(context, name, axes)], dtypes=[TensorProto.INT64]
        ).output[0]
    _give(context, product, to)


def _convert_float_mean(context: Any, node: Any, name: str) -> None:
    given, dtype = node.input[0], node.output_dtypes[0]
    if not _is_of_data(context, given):
        convert_as_tf2onnx(context, node)
        return
    to, axes, keepdims = _taken_out(context, node)
    options = {"keepdims": keepdims, "noop_with_empty_axes": 1}
    total = context.make_node("ReduceSum", [given, axes], options, dtypes=[dtype]).output[0]
    shape = context.make_node("Shape", [given]).output[0]
    sizes = context.make_node("Gather", [shape, axes]).output[0]
    count = context.make_node("ReduceProd", [sizes], {"keepdims": 0}).output[0]
    divisor = cast(context, count, dtype, f"{name}/{AS_TENSORFLOW}")
    context.make_node("Div", [total, divisor], **to)


def _is_of_data(context: Any, tensor: str) -> bool:
    """Whether values decide how many there are in a tensor: those that a mask picks, for one."""
    stack, seen = [tensor], set()
    while stack:
        node = context.get_node_by_output(stack.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.type in ("Where", "NonZero", "Unique", "UniqueV2", "Compress", "DynamicPartition"):
            return True
        stack += node.input
    return False


def _taken_out(context: Any, node: Any) -> tuple[dict[str, Any], str, int]:
    """What the last node in place of this one gives, the axes as int64, and whether they stay."""
    to, axes, keepdims = result_of(node), node.input[1], node.get_attr_value("keep_dims", 0)
    context.remove_node(node.name)
    axes = cast(context, axes, TensorProto.INT64)
    flat = constant(context, node.name, [-1])
    return to, context.make_node("Reshape", [axes, flat]).output[0], int(keepdims)


def _sum(context: Any, name: str, given: str, axes: str, keepdims: int) -> str:
    """The sum as int64, modulo 2^64."""
    many = context.get_dtype(given) in _MANY and not are_small(context, given)
    whole = cast(context, given, TensorProto.INT64)

    def do(op_type: str, *parts: str, **options: Any) -> str:
        made = context.make_node(op_type, list(parts), options, dtypes=[TensorProto.INT64])
        return made.output[0]

    def summed(part: str) -> str:
        return do("ReduceSum", part, axes, keepdims=keepdims, noop_with_empty_axes=1)

    if not many:
        return summed(whole)
    size = constant(context, name, _PART)
    # whole = (high * size + middle) * size + low
    low = do("Mod", whole, size)
    rest = do("Div", do("Sub", whole, low), size)
    middle = do("Mod", rest, size)
    high = do("Div", do("Sub", rest, middle), size)
    upper = do("Add", do("Mul", summed(high), size), summed(middle))
    return do("Add", do("Mul", upper, size), summed(low))


def _filled(value: int) -> Any:
    return helper.make_tensor("value", TensorProto.INT64, [1], [value])


def _give(context: Any, tensor: str, to: dict[str, Any]) -> None:
    """The tensor as what is asked for; a cast to fewer bits leaves the upper ones out."""
    dtype = to["dtypes"][0]
    if dtype == TensorProto.INT64:
        context.make_node("Identity", [tensor], **to)
    else:
        context.make_node("Cast", [tensor], {"to": dtype}, **to)
