"""Pooling with windows that stand further apart than they are wide.

Under SAME padding TensorFlow leaves out what lies behind the last window; onnxruntime finds the
padding negative there, if it learns the size only when it runs, and fails. Without that part both
agree on a padding of 0 or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import TensorProto
from tf2onnx.onnx_opset.nn import PoolOp

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.ops.sizes import INTEGERS
from keras_blocks.export.lowerings.registry import converts

_BITS_OF_FLOAT64 = 53

_OPS = {
    "AvgPool": "AveragePool",
    "AvgPool3D": "AveragePool",
    "MaxPool": "MaxPool",
    "MaxPool3D": "MaxPool",
}


@converts(*_OPS)
def convert_pooling(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's pooling, after a cut behind the last window where one may be needed."""
    pooling = node.type
    widths, strides = node.get_attr_value("ksize"), node.get_attr_value("strides")
    shape = context.get_shape(node.input[0])
    same = node.get_attr_value("padding") == b"SAME"
    axes = [a for a in range(len(widths)) if same and strides[a] > widths[a] and shape[a] < 0]
    if axes:
        _trim(context, node, axes, [widths[a] for a in axes], [strides[a] for a in axes])
    node.type = _OPS[pooling]
    _refuse_or_widen(context, node, context.get_dtype(node.input[0]))
    PoolOp._convert(context, node, tf_op=pooling)


def _refuse_or_widen(context: Any, node: Any, dtype: int) -> None:
    """Integers are compared as float64, which has all those of 32 bits; tf2onnx takes float32."""
    bits = INTEGERS.get(dtype)
    if bits is None:
        return
    if bits > _BITS_OF_FLOAT64:
        raise ExportError(
            f"node '{node.name}' pools integers of 64 bits, and onnxruntime does so with floats, "
            "which have not all of them. Cast the input to int32 or to floats."
        )
    wide, result = cast(context, node.input[0], TensorProto.DOUBLE), node.output[0]
    context.replace_input(node, node.input[0], wide, 0)
    shape = context.get_shape(result)
    context.set_dtype(result, TensorProto.DOUBLE)
    back = context.insert_new_node_on_output("Cast", result, name=f"{node.name}/whole", to=dtype)
    context.set_dtype(back.output[0], dtype)
    context.set_shape(back.output[0], shape)


def _trim(
    context: Any, node: Any, axes: Sequence[int], widths: Sequence[int], strides: Sequence[int]
) -> None:
    """n windows reach (n - 1) stride + width, with n = ceil(size / stride)."""
    given = node.input[0]

    def sizes_of(values: Sequence[int]) -> str:
        return constant(context, node.name, values)

    def apply(op_type: str, *inputs: str) -> str:
        return context.make_node(op_type, list(inputs)).output[0]

    stride = sizes_of(strides)
    sizes = apply("Gather", apply("Shape", given), sizes_of(axes))
    before_last = apply("Div", apply("Sub", sizes, sizes_of([1])), stride)
    ends = apply("Add", apply("Mul", before_last, stride), sizes_of(widths))
    trimmed = context.make_node(
        "Slice",
        [given, sizes_of([0] * len(axes)), ends, sizes_of(axes)],
        shapes=[context.get_shape(given)],
        dtypes=[context.get_dtype(given)],
    )
    context.replace_inputs(node, [trimmed.output[0], *node.input[1:]])
