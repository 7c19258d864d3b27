"""Where numbers belong among sorted ones: `digitize`, `searchsorted`, Discretization.

As many places as there are sorted numbers before it: those that are not greater (`right`), or those
that are less (`left`). NaN belongs behind all of them, or in front, as no comparison with it holds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from tf2onnx import utils

from keras_blocks.export.lowerings.ops.node_builder import AS_TENSORFLOW, cast, constant
from keras_blocks.export.lowerings.registry import converts


@converts("Bucketize")
def convert_bucketize(context: Any, node: Any, name: str, args: Any) -> None:
    """The places of numbers among boundaries that are attributes, of any shape."""
    given, to = node.input[0], _result(node)
    boundaries = np.array(node.get_attr_value("boundaries"), np.float32)
    exact = context.get_dtype(given) == TensorProto.DOUBLE
    number = TensorProto.DOUBLE if exact else TensorProto.FLOAT
    numpy_type = utils.map_onnx_to_numpy_type(number)
    before = constant(context, name, boundaries, numpy_type)
    # TensorFlow compares with float boundaries too.
    values = cast(context, given, number, f"{name}/{AS_TENSORFLOW}")
    context.remove_node(name)
    last = constant(context, name, [-1])
    _count(context, [_apart(context, values, last), before], "right", last, to)


@converts("LowerBound", "UpperBound")
def convert_bound(context: Any, node: Any, name: str, args: Any) -> None:
    """The places of (rows, values) among (rows, sorted)."""
    (before, values), to = node.input, _result(node)
    side = "right" if node.type == "UpperBound" else "left"
    context.remove_node(name)
    middle, last = constant(context, name, [1]), constant(context, name, [-1])
    compared = [_apart(context, values, last), _apart(context, before, middle)]
    _count(context, compared, side, last, to)


def _apart(context: Any, tensor: str, axis: str) -> str:
    return context.make_node("Unsqueeze", [tensor, axis]).output[0]


def _result(node: Any) -> dict[str, Any]:
    """What the last node in place of this one gives."""
    given = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    return {"name": node.name, "outputs": list(node.output), **given}


def _count(context: Any, compared: list[str], side: str, last: str, to: dict[str, Any]) -> None:
    """How many of the sorted numbers stand before each value, along the last axis."""
    if side == "right":
        less = context.make_node("Less", compared).output
        before = context.make_node("Not", less).output[0]
    else:
        before = context.make_node("Less", compared[::-1]).output[0]
    ones = context.make_node("Cast", [before], {"to": to["dtypes"][0]}).output[0]
    context.make_node("ReduceSum", [ones, last], {"keepdims": 0}, **to)
