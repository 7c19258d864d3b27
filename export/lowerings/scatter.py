"""Values put, added or compared into places of a tensor, as a tree's children reach their parent.

onnxruntime's ScatterND goes through its values in parallel, and where several reach one place it
loses some of a sum or a maximum: with more than one thread, now and then. Its ScatterElements goes
one by one, so every reduction is one of these. It adds no float16 on CPU, and ONNX knows sums since
opset 16, maxima since 18.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import converts

_FORMS: dict[str, tuple[str | None, int]] = {
    "TensorScatterUpdate": (None, 11),
    "TensorScatterAdd": ("add", 16),
    "TensorScatterMax": ("max", 18),
    "TensorScatterMin": ("min", 18),
}
"""For each TensorFlow op the reduction in ONNX, and the opset that has it."""


@converts(*_FORMS)
def convert_tensor_scatter(context: Any, node: Any, name: str, args: Any) -> None:
    """ScatterND to put, ScatterElements to reduce; float16 is reduced as float32."""
    reduction, oldest = _FORMS[node.type]
    if context.opset < oldest:
        raise ExportError(
            f"node '{name}' has the form of {node.type}, which trees use, and ONNX has it since "
            f"opset {oldest}. Choose opset_version={oldest} or more."
        )
    (data, indices, updates), outputs = node.input, list(node.output)
    shapes, (dtype,) = node.output_shapes, node.output_dtypes
    context.remove_node(name)

    def cast(given: str, to: int) -> str:
        if context.get_dtype(given) == to:
            return given
        return context.make_node("Cast", [given], attr={"to": to}).output[0]

    indices = cast(indices, TensorProto.INT64)
    if reduction is None:
        context.make_node(
            "ScatterND", [data, indices, updates], outputs=outputs, name=name,
            shapes=shapes, dtypes=[dtype],
        )  # fmt: skip
        return
    places = _element_places(context, indices, updates, name)
    attr = {"axis": 0, "reduction": reduction}
    summed = TensorProto.FLOAT if dtype == TensorProto.FLOAT16 else dtype
    given = [cast(data, summed), places, cast(updates, summed)]
    if summed == dtype:
        context.make_node(
            "ScatterElements", given, attr, outputs=outputs, name=name,
            shapes=shapes, dtypes=[dtype],
        )  # fmt: skip
        return
    result = context.make_node("ScatterElements", given, attr, shapes=shapes, dtypes=[summed])
    context.make_node(
        "Cast", [result.output[0]], {"to": dtype}, outputs=outputs, name=name,
        shapes=shapes, dtypes=[dtype],
    )  # fmt: skip


def _element_places(context: Any, indices: str, updates: str, name: str) -> str:
    """The row of every element of the updates, from (values, 1) rows of the values."""
    shape, rank = context.get_shape(indices), context.get_rank(updates)
    if not shape or len(shape) != 2 or shape[-1] != 1 or rank is None:
        raise ExportError(
            f"node '{name}' reduces values into places of several axes, which onnxruntime does in "
            f"parallel and not always right. Flatten these axes, and the places, into one before."
        )
    ones = [1] * (rank - 1)
    column = context.make_const(f"{name}_column", np.array([-1, *ones], "int64")).output[0]
    rows = context.make_node("Reshape", [indices, column]).output[0]
    if rank == 1:
        return rows
    sizes = context.make_node("Shape", [updates]).output[0]
    return context.make_node("Expand", [rows, sizes]).output[0]


@converts("ScatterNd")
def convert_scatter_nd(context: Any, node: Any, name: str, args: Any) -> None:
    """Values added onto zeros, which tf2onnx puts: of values for one place it keeps the last."""
    indices, updates, shape = node.input
    sizes = context.make_node("Cast", [shape], attr={"to": TensorProto.INT64}).output[0]
    dtype = tensor_dtype_to_np_dtype(context.get_dtype(updates))
    zero = context.make_const(f"{name}_zero", np.zeros((), dtype))
    zeros = context.make_node(
        "Expand", [zero.output[0], sizes], dtypes=[context.get_dtype(updates)]
    )
    node.type = "TensorScatterAdd"
    context.replace_inputs(node, [zeros.output[0], indices, updates])
    convert_tensor_scatter(context, node, name, args)
