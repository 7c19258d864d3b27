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
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
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
            f"opset {oldest}. Choose opset_version={oldest} or more (--opset)."
        )
    (data, indices, updates), outputs = node.input, list(node.output)
    to, (dtype,) = {"outputs": outputs, "shapes": node.output_shapes}, node.output_dtypes
    context.remove_node(name)
    places = cast(context, indices, TensorProto.INT64)
    if reduction is None:
        context.make_node("ScatterND", [data, places, updates], dtypes=[dtype], name=name, **to)
        return
    computed = TensorProto.FLOAT if dtype == TensorProto.FLOAT16 else dtype
    data, updates = (cast(context, tensor, computed) for tensor in (data, updates))
    if node.type == "TensorScatterSub":
        # Integers without a sign are not negated, but 0 less them, modulo the element type.
        zero = constant(context, name, 0, tensor_dtype_to_np_dtype(computed))
        updates = context.make_node("Sub", [zero, updates], dtypes=[computed]).output[0]
    after: list[tuple[str, list[str], dict[str, Any]]] = []
    if (context.get_shape(indices) or [])[1:] != [1]:
        data, places, updates, sizes = _joined(context, name, data, places, updates)
        after.append(("Reshape", [sizes], {}))
    if computed != dtype:
        after.append(("Cast", [], {"to": dtype}))
    given = [data, element_places(context, places, updates, name), updates]
    steps = [("ScatterElements", given, {"axis": 0, "reduction": reduction}), *after]
    result: list[str] = []
    for op_type, more, attr in steps[:-1]:
        result = context.make_node(op_type, [*result, *more], attr, dtypes=[computed]).output
    op_type, more, attr = steps[-1]
    context.make_node(op_type, [*result, *more], attr, dtypes=[dtype], name=name, **to)


def _joined(
    context: Any, name: str, data: str, places: str, updates: str
) -> tuple[str, str, str, str]:
    """The data, places and updates with one axis for all that a place names, and the data's shape.

    (d1, ..., dk, rest), (..., k) and (..., rest) become (d1 ... dk, rest), (values, 1) and
    (values, rest).
    """
    shape = context.get_shape(places)
    if not shape or shape[-1] < 1 or context.get_rank(data) is None:
        raise ExportError(
            f"node '{name}' reduces values into places of which it is not known how many axes "
            "they name. Give them a fixed last axis: tf.ensure_shape(indices, [None, 2])."
        )
    named, rank, data_rank = shape[-1], len(shape), context.get_rank(data)

    def do(op_type: str, *given: Any, **attr: Any) -> str:
        names = [part if isinstance(part, str) else constant(context, name, part) for part in given]
        return context.make_node(op_type, names, attr).output[0]

    def count(sizes: str, first: int, last: int) -> str:
        return do("ReduceProd", do("Slice", sizes, [first], [last]), keepdims=1)

    sizes = do("Shape", data)
    rest = do("Slice", sizes, [named], [data_rank])
    strides = [count(sizes, axis + 1, named) for axis in range(named - 1)]
    apart = do("Reshape", places, [-1, named])
    steps = do("Mul", apart, do("Concat", *strides, [1], axis=0))
    values = count(do("Shape", updates), 0, rank - 1)
    tensors = ((data, count(sizes, 0, named)), (updates, values))
    flat = []
    for tensor, rows in tensors:
        reshaped = do("Reshape", tensor, do("Concat", rows, rest, axis=0))
        context.set_shape(reshaped, [-1] * (data_rank - named + 1))
        flat.append(reshaped)
    joined = do("ReduceSum", steps, [1], keepdims=1)
    return flat[0], joined, flat[1], sizes


def element_places(context: Any, places: str, updates: str, name: str) -> str:
    """The row of every element of the updates, from (values, 1) rows of the values."""
    rank = context.get_rank(updates)
    if rank is None:
        raise ExportError(f"node '{name}' reduces values of no known rank into places")
    ones = [1] * (rank - 1)
    column = constant(context, name, [-1, *ones])
    rows = context.make_node("Reshape", [places, column]).output[0]
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
