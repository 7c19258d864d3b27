"""One-hot vectors: each index is compared with each class.

ONNX's OneHot counts negative indices from the end, where TensorFlow gives no class at all; and
onnxruntime has it for few element types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts


@converts("OneHot")
def convert_one_hot(context: Any, node: Any, name: str, args: Any) -> None:
    """`on` where the index is the class along the new axis, else `off`."""
    given, depth, on, off = node.input
    values = [_value(context, part) for part in (on, off)]
    to = {"outputs": list(node.output), "shapes": node.output_shapes, "dtypes": node.output_dtypes}
    axis, rank = node.get_attr_value("axis", -1), context.get_rank(given)
    if axis != -1 and rank is None:
        raise ExportError(f"node '{name}' makes one-hot vectors of a tensor of unknown rank")
    indices, count = (cast(context, part, TensorProto.INT64) for part in (given, depth))
    context.remove_node(name)
    ends = [constant(context, name, at) for at in (0, 1)]
    classes = context.make_node("Range", [ends[0], count, ends[1]]).output[0]
    if axis not in (-1, rank):
        behind = constant(context, name, list(range(1, rank - axis + 1)))
        classes = context.make_node("Unsqueeze", [classes, behind]).output[0]
    apart = context.make_node("Unsqueeze", [indices, constant(context, name, [axis])]).output[0]
    hot = context.make_node("Equal", [apart, classes], dtypes=[TensorProto.BOOL]).output[0]
    if values == [1, 0]:
        context.make_node("Cast", [hot], {"to": to["dtypes"][0]}, name=name, **to)
    else:
        context.make_node("Where", [hot, on, off], name=name, **to)


def _value(context: Any, tensor: str) -> float | None:
    producer = context.get_node_by_output(tensor)
    return float(np.asarray(producer.get_tensor_value(False))) if producer.is_const() else None
