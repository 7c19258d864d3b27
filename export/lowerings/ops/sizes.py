"""Integers that stay small whatever the input: truths, sizes of axes, places, and what is made of
them.

onnxruntime sums and multiplies integers as float64, which is exact for these alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

_LARGEST = 2**20  # of a constant
_FROM_SHAPES = frozenset(["Shape", "ShapeN", "Size", "Rank"])
_TRUTHS = frozenset([TensorProto.BOOL])
_PLACES = frozenset(["ArgMax", "ArgMin", "NonZero", "LowerBound", "UpperBound"])
# Those that hand on the elements of their first inputs, and how many inputs those are.
_HANDS_ON = {
    **dict.fromkeys(["Cast", "EnsureShape", "ExpandDims", "Gather", "GatherNd", "GatherV2"], 1),
    **dict.fromkeys(["Identity", "Neg", "Reshape", "Slice", "Squeeze", "StridedSlice", "Tile"], 1),
    **dict.fromkeys(["Transpose", "Unpack", "Unsqueeze", "Abs", "Expand", "BroadcastTo"], 1),
    **dict.fromkeys(["Add", "AddV2", "Sub", "Maximum", "Minimum", "Max", "Min"], 2),
    **dict.fromkeys(["FloorDiv", "Div", "Sum", "ReduceSum", "Cumsum", "CumSum"], 1),
    **dict.fromkeys(["Mul"], 2),
    **dict.fromkeys(["Range"], 3),
}
_CHOICES = frozenset(["Select", "SelectV2", "Where"])
_ALL_INPUTS = frozenset(["Pack", "Concat"])
_DEEPEST = 24


def are_small(context: Any, tensor: str, only_sizes: bool = False, depth: int = 0) -> bool:
    """Whether the integers of a tensor are known to be small.

    Args:
        context: tf2onnx's graph, in which some nodes are TensorFlow's still.
        tensor: str, the name of the tensor.
        only_sizes: bool, whether nothing but the sizes of axes and constants count: few enough
            that their product is no larger than a tensor can be.
    """
    node = context.get_node_by_output(tensor)
    if node is None or depth > _DEEPEST:
        return False
    if node.is_const():
        values = np.asarray(node.get_tensor_value(as_list=False))
        return values.dtype.kind in "biu" and bool((np.abs(values) <= _LARGEST).all())
    if node.type in _FROM_SHAPES:
        return True
    if not only_sizes:
        # TensorFlow's Where of one input gives places, ONNX's chooses between the other two.
        if node.type in _PLACES or (node.type == "Where" and len(node.input) == 1):
            return True
        if node.type == "Cast" and context.get_dtype(node.input[0]) in _TRUTHS:
            return True
        if node.type in ("TopKV2", "TopK", "Unique") and node.output.index(tensor) > 0:
            return True
    if node.type == "ConcatV2":
        given = node.input[:-1]
    elif node.type in _CHOICES:
        given = node.input[1:]
    elif node.type in _ALL_INPUTS:
        given = node.input
    else:
        given = node.input[: _HANDS_ON.get(node.type, 0)]
    if node.type == "Cast" and context.get_dtype(node.input[0]) not in INTEGERS:
        return False
    return bool(given) and all(are_small(context, x, only_sizes, depth + 1) for x in given)


INTEGERS: dict[int, int] = {
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT16: 16,
    TensorProto.UINT16: 16,
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
}
"""The integer types of ONNX, and how many bits they have."""
