"""Integers of 8 and 16 bits and those without a sign, where onnxruntime has no kernel for them.

They are computed in a wider type that has all of their numbers, and made what they were after it.
tf2onnx pads them as float32, which has not all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.export.lowerings.ops.node_builder import cast, constant, convert_as_tf2onnx
from keras_blocks.export.lowerings.ops.sizes import INTEGERS
from keras_blocks.export.lowerings.registry import converts

_P = TensorProto
_WIDER = {
    **dict.fromkeys([_P.INT8, _P.UINT8, _P.INT16, _P.UINT16], _P.INT32),
    **dict.fromkeys([_P.UINT32, _P.UINT64], _P.INT64),
}
_WHOLE = frozenset([_P.INT32, _P.INT64])
_BYTES = _WHOLE | {_P.INT8, _P.UINT8}


@dataclass(frozen=True)
class _Kernel:
    """For which integers onnxruntime has an op; `data` are the places of the inputs that hold them,
    `compares` says that it asks which is larger, `keeps` that it gives them back.
    """

    types: frozenset[int]
    data: tuple[int, ...] = (0,)
    compares: bool = False
    keeps: bool = True


_KERNELS = {
    "Max": _Kernel(_BYTES, compares=True),
    "Min": _Kernel(_BYTES, compares=True),
    "ArgMax": _Kernel(_BYTES, compares=True, keeps=False),
    "ArgMin": _Kernel(_BYTES, compares=True, keeps=False),
    "Maximum": _Kernel(_BYTES | {_P.UINT32, _P.UINT64}, (0, 1), compares=True),
    "Minimum": _Kernel(_BYTES | {_P.UINT32, _P.UINT64}, (0, 1), compares=True),
    "ClipByValue": _Kernel(_BYTES | {_P.UINT32, _P.UINT64}, (0, 1, 2), compares=True),
    "Cumsum": _Kernel(_WHOLE),
    "Neg": _Kernel(_WHOLE | {_P.INT8}),
    "Pad": _Kernel(_WHOLE),
    "PadV2": _Kernel(_WHOLE, (0, 2)),
    "MirrorPad": _Kernel(_WHOLE),
}


@converts(*_KERNELS)
def convert_narrow(context: Any, node: Any, name: str, args: Any) -> None:
    """What tf2onnx makes of it, in a type that onnxruntime computes in."""
    kernel, dtype = _KERNELS[node.type], context.get_dtype(node.input[0])
    if dtype in INTEGERS and dtype not in kernel.types:
        wider = _WIDER[dtype]
        # Numbers of 64 bits without a sign keep their order once the first half is below 0.
        shifted = kernel.compares and dtype == _P.UINT64
        for place in kernel.data:
            wide = cast(context, node.input[place], wider)
            wide = _shifted(context, name, wide) if shifted else wide
            context.replace_input(node, node.input[place], wide, place)
        if kernel.keeps:
            result = node.output[0]
            shape = context.get_shape(result)
            context.set_dtype(result, wider)
            back = context.insert_new_node_on_output(
                "Cast", result, name=f"{name}/narrow", to=dtype
            )
            context.set_dtype(back.output[0], dtype)
            context.set_shape(back.output[0], shape)
            if shifted:
                least = constant(context, name, np.iinfo(np.int64).min)
                add = context.insert_new_node_on_output("Add", result, name=f"{name}/shift")
                add.input.append(least)
                context.set_dtype(add.output[0], wider)
                context.set_shape(add.output[0], shape)
    convert_as_tf2onnx(context, node)


def _shifted(context: Any, name: str, tensor: str) -> str:
    least = constant(context, name, np.iinfo(np.int64).min)
    return context.make_node("Add", [tensor, least], dtypes=[_P.INT64]).output[0]


@converts("Relu")
def convert_relu(context: Any, node: Any, name: str, args: Any) -> None:
    """Of integers the larger of each and 0: onnxruntime's Relu knows two kinds of them alone."""
    dtype = context.get_dtype(node.input[0])
    if dtype not in INTEGERS:
        convert_as_tf2onnx(context, node)
        return
    node.type = "Maximum"
    zero = constant(context, name, 0, tensor_dtype_to_np_dtype(dtype))
    context.replace_inputs(node, [node.input[0], zero])
    convert_narrow(context, node, name, args)


@converts("AddN")
def convert_add_n(context: Any, node: Any, name: str, args: Any) -> None:
    """Of integers one after the other: ONNX's Sum takes floats."""
    if context.get_dtype(node.input[0]) not in INTEGERS or len(node.input) < 2:
        convert_as_tf2onnx(context, node)
        return
    given, outputs = list(node.input), list(node.output)
    to = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    context.remove_node(name)
    total = given[0]
    for more in given[1:-1]:
        total = context.make_node("Add", [total, more], **to).output[0]
    context.make_node("Add", [total, given[-1]], outputs=outputs, name=name, **to)
