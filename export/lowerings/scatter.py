"""Values put, added or compared into places of a tensor, as a tree's children reach their parent.

onnxruntime's ScatterND goes through its values in parallel, and where several reach one place it
loses some of a sum or a maximum: with more than one thread, now and then. Its ScatterElements goes
one by one, so every reduction is one of these. It adds no float16 on CPU, and ONNX knows sums since
opset 16, maxima since 18.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.building import cast, constant
from keras_blocks.export.lowerings.registry import converts

_FORMS: dict[str, tuple[str | None, int]] = {
    "TensorScatterUpdate": (None, 11),
    "TensorScatterAdd": ("add", 16),
    "TensorScatterSub": ("add", 16),  # of what is subtracted, negated
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
    to, (dtype,) = {"name": name, "shapes": node.output_shapes}, node.output_dtypes
    context.remove_node(name)
    places = cast(context, indices, TensorProto.INT64)
    op_type, attr, computed = "ScatterND", {}, dtype
    if reduction is not None:
        op_type, attr = "ScatterElements", {"axis": 0, "reduction": reduction}
        places = _element_places(context, places, updates, name)
        computed = TensorProto.FLOAT if dtype == TensorProto.FLOAT16 else dtype
    updates = cast(context, updates, computed)
    if node.type == "TensorScatterSub":
        updates = context.make_node("Neg", [updates]).output[0]
    given = [cast(context, data, computed), places, updates]
    if computed == dtype:
        context.make_node(op_type, given, attr, outputs=outputs, dtypes=[dtype], **to)
        return
    result = context.make_node(op_type, given, attr, dtypes=[computed], shapes=to["shapes"])
    context.make_node("Cast", result.output, {"to": dtype}, outputs=outputs, dtypes=[dtype], **to)


def _element_places(context: Any, indices: str, updates: str, name: str) -> str:
    """The row of every element of the updates, from (values, 1) rows of the values."""
    shape, rank = context.get_shape(indices), context.get_rank(updates)
    if not shape or len(shape) != 2 or shape[-1] != 1 or rank is None:
        raise ExportError(
            f"node '{name}' reduces values into places of several axes, which onnxruntime does in "
            f"parallel and not always right. Flatten these axes, and the places, into one before."
        )
    ones = [1] * (rank - 1)
    column = constant(context, name, [-1, *ones])
    rows = context.make_node("Reshape", [indices, column]).output[0]
    if rank == 1:
        return rows
    sizes = context.make_node("Shape", [updates]).output[0]
    return context.make_node("Expand", [rows, sizes]).output[0]


@converts("ScatterNd")
def convert_scatter_nd(context: Any, node: Any, name: str, args: Any) -> None:
    """Values added onto zeros, which tf2onnx puts: of values for one place it keeps the last."""
    indices, updates, shape = node.input
    sizes = cast(context, shape, TensorProto.INT64)
    dtype = context.get_dtype(updates)
    zero = constant(context, name, 0, tensor_dtype_to_np_dtype(dtype))
    zeros = context.make_node("Expand", [zero, sizes], dtypes=[dtype])
    node.type = "TensorScatterAdd"
    context.replace_inputs(node, [zeros.output[0], indices, updates])
    convert_tensor_scatter(context, node, name, args)
