"""How often each number occurs, in a vector or in each row of a matrix.

tf2onnx sorts the numbers, and takes no weights. Here each number puts its weight into the place
that it names; those from `size` on, which do not count, go to a place behind the others.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts

_OLDEST_OPSET = 16


@converts("Bincount", "DenseBincount")
def convert_bincount(context: Any, node: Any, name: str, args: Any) -> None:
    """A ScatterElements onto zeros."""
    given, size, weights = node.input
    outputs, shapes, dtypes = list(node.output), node.output_shapes, node.output_dtypes
    binary = bool(node.get_attr_value("binary_output", False))
    rank = context.get_rank(given)
    if rank not in (1, 2):
        raise ExportError(f"node '{name}' counts the numbers of a tensor of unknown rank")
    if not binary and context.opset < _OLDEST_OPSET:
        raise ExportError(
            f"node '{name}' counts numbers, which needs sums into places, and ONNX has them since "
            f"opset {_OLDEST_OPSET}. Choose opset_version={_OLDEST_OPSET} or more (--opset)."
        )
    numbers = cast(context, given, TensorProto.INT64)
    count = cast(context, size, TensorProto.INT64)
    count = context.make_node("Reshape", [count, constant(context, name, [1])]).output[0]
    weighted = not binary and 0 not in (context.get_shape(weights) or [])
    context.remove_node(name)
    places = context.make_node("Min", [numbers, count], dtypes=[TensorProto.INT64]).output[0]
    shape = context.make_node("Shape", [places]).output[0]
    one = constant(context, name, 1, tensor_dtype_to_np_dtype(dtypes[0]))
    added = weights if weighted else context.make_node("Expand", [one, shape]).output[0]
    counts = context.make_node(
        "ScatterElements",
        [_zeros(context, name, shape, count, rank, dtypes[0]), places, added],
        {"axis": rank - 1, **({} if binary else {"reduction": "add"})},
        dtypes=dtypes,
    )
    first, last = constant(context, name, [0]), constant(context, name, [rank - 1])
    cut = [counts.output[0], first, count, last]
    context.make_node("Slice", cut, outputs=outputs, name=name, shapes=shapes, dtypes=dtypes)


def _zeros(context: Any, name: str, shape: str, count: str, rank: int, dtype: int) -> str:
    """Zeros of as many rows, and one place more than are counted."""
    sizes = context.make_node("Add", [count, constant(context, name, [1])]).output[0]
    if rank == 2:
        ends = [constant(context, name, [at]) for at in (0, 1)]
        rows = context.make_node("Slice", [shape, *ends]).output[0]
        sizes = context.make_node("Concat", [rows, sizes], {"axis": 0}).output[0]
    zero = constant(context, name, 0, tensor_dtype_to_np_dtype(dtype))
    return context.make_node("Expand", [zero, sizes], dtypes=[dtype]).output[0]
