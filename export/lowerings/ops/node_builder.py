"""Small parts that converters put beside the node they convert."""

from __future__ import annotations

from typing import Any

import numpy as np
from tf2onnx import utils
from tf2onnx.handler import tf_op

AS_TENSORFLOW = "rounded_as_in_tensorflow"
"""In the name of a cast to floats that TensorFlow's own kernel does too."""


def cast(context: Any, tensor: str, dtype: int, name: str | None = None) -> str:
    """The tensor as this ONNX element type; itself where it has it."""
    if context.get_dtype(tensor) == dtype:
        return tensor
    named = {} if name is None else {"name": utils.make_name(name)}
    return context.make_node("Cast", [tensor], attr={"to": dtype}, dtypes=[dtype], **named).output[
        0
    ]


def constant(context: Any, name: str, values: Any, dtype: Any = np.int64) -> str:
    """A constant of NumPy's element type, named after the node that it is for."""
    array = np.array(values, dtype)
    return context.make_const(utils.make_name(name), array).output[0]


def result_of(node: Any) -> dict[str, Any]:
    """What the last node in place of this one gives."""
    given = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    return {"name": node.name, "outputs": list(node.output), **given}


def convert_as_tf2onnx(context: Any, node: Any) -> None:
    """What tf2onnx makes of a node, where it is right."""
    op = node.type
    for handlers in reversed(tf_op.get_opsets()[""][: context.opset + 1]):
        if op in handlers:
            handler, options = handlers[op]
            node.type = options.get("onnx_op", op)
            handler(context, node, **{**options, "tf_op": op}, initialized_tables={})
            return
    raise NotImplementedError(f"tf2onnx has no form of {op} in opset {context.opset}")
