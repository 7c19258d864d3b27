"""Sums, products, maxima, minima and means of segments: rows with the same number are one.

tf2onnx sorts the rows by number and reduces them in a padded grid, integers as floats, and takes no
negative number, which TensorFlow leaves out. Here every row goes into the place that it names.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant, result_of
from keras_blocks.export.lowerings.registry import converts

_REDUCTIONS = {"Sum": ("add", 16), "Mean": ("add", 16), "Prod": ("mul", 16)}
_REDUCTIONS |= {"Max": ("max", 18), "Min": ("min", 18)}


@converts(*(f"UnsortedSegment{kind}" for kind in ("Sum", "Prod", "Max", "Min")))
def convert_unsorted(context: Any, node: Any, name: str, args: Any) -> None:
    """As many segments as are asked for; rows with a negative number go behind them, and away."""
    kind = node.type.removeprefix("UnsortedSegment")
    _, ids, count = node.input
    given = context.get_node_by_output(ids)
    known = given is not None and given.is_const()
    negative = not known or bool((given.get_tensor_value(as_list=False) < 0).any())
    segments = _Segments(context, node, kind)
    count = context.make_node(
        "Reshape", [cast(context, count, TensorProto.INT64), constant(context, name, [1])]
    ).output[0]
    places, rows = segments.places, count
    if negative:
        zero, one = constant(context, name, 0), constant(context, name, [1])
        outside = context.make_node("Less", [places, zero], dtypes=[TensorProto.BOOL]).output[0]
        places = context.make_node(
            "Where", [outside, count, places], dtypes=[TensorProto.INT64]
        ).output[0]
        rows = context.make_node("Add", [count, one]).output[0]
    reduced = segments.reduce(places, rows, _least(kind, segments.dtype))
    if negative:
        first = constant(context, name, [0])
        cut = [reduced, first, count, first]
        reduced = context.make_node("Slice", cut, dtypes=[segments.computed]).output[0]
    segments.give(reduced)


@converts(*(f"Segment{kind}" for kind in _REDUCTIONS))
def convert_sorted(context: Any, node: Any, name: str, args: Any) -> None:
    """Segments up to the last number; those without a row are 0, a product of nothing is 1."""
    kind = node.type.removeprefix("Segment")
    segments = _Segments(context, node, kind)
    places, none = segments.places, constant(context, name, [-1])
    numbers = context.make_node("Concat", [none, places], {"axis": 0}).output[0]
    ends = [numbers, none, constant(context, name, [2**31])]
    last = context.make_node("Slice", ends, dtypes=[TensorProto.INT64]).output[0]
    rows = context.make_node("Add", [last, constant(context, name, [1])]).output[0]
    start = _least(kind, segments.dtype)
    reduced = segments.reduce(places, rows, start)
    if kind in ("Mean", "Max", "Min"):
        counts = segments.counts(places, rows)
        if kind == "Mean":
            one = constant(context, name, 1, tensor_dtype_to_np_dtype(segments.computed))
            counts = cast(context, counts, segments.computed)
            counts = context.make_node("Max", [counts, one], dtypes=[segments.computed]).output[0]
            reduced = context.make_node(
                "Div", [reduced, counts], dtypes=[segments.computed]
            ).output[0]
        else:
            one = constant(context, name, 1)
            there = context.make_node("Min", [counts, one], dtypes=[TensorProto.INT64]).output[0]
            factors = [reduced, cast(context, there, segments.computed)]
            reduced = context.make_node("Mul", factors, dtypes=[segments.computed]).output[0]
    segments.give(reduced)


class _Segments:
    """The rows of one node, (rows, rest), and their numbers, (rows,), taken out of the graph."""

    def __init__(self, context: Any, node: Any, kind: str):
        self.context, self.name, self.to = context, node.name, result_of(node)
        self.reduction, oldest = _REDUCTIONS[kind]
        data, ids = node.input[:2]
        self.dtype = context.get_dtype(data)
        # onnxruntime scatters no float16, and compares not all the small integers.
        self.computed = _COMPUTED.get(self.dtype, self.dtype)
        rank, named = context.get_rank(data), context.get_rank(ids)
        if rank is None or named is None or context.opset < oldest:
            raise ExportError(
                f"node '{node.name}' reduces segments of rows, for which ONNX has a form since "
                f"opset {oldest}, where it is known how many axes the rows have. Choose "
                f"opset_version={oldest} or more (--opset), or give the rows a shape."
            )
        context.remove_node(node.name)
        self.rank = rank - named + 1
        data = cast(context, data, self.computed)
        places = cast(context, ids, TensorProto.INT64)
        shape = context.make_node("Shape", [data]).output[0]
        ends = [constant(context, self.name, [at]) for at in (named, rank)]
        self.rest = context.make_node("Slice", [shape, *ends]).output[0]
        if named != 1:
            flat = constant(context, self.name, [-1])
            count = context.make_node("Size", [places]).output[0]
            count = context.make_node("Reshape", [count, flat]).output[0]
            rows = context.make_node("Concat", [count, self.rest], {"axis": 0}).output[0]
            data = context.make_node("Reshape", [data, rows], dtypes=[self.computed]).output[0]
            places = context.make_node("Reshape", [places, flat]).output[0]
        self.data, self.places = data, places

    def reduce(self, places: str, rows: str, start: Any) -> str:
        """So many rows that begin with a number, and take in those of the data."""
        make, name = self.context.make_node, self.name
        number = constant(self.context, name, start, tensor_dtype_to_np_dtype(self.computed))
        sizes = make("Concat", [rows, self.rest], {"axis": 0}).output[0]
        base = make("Expand", [number, sizes], dtypes=[self.computed]).output[0]
        column = constant(self.context, name, [-1, *[1] * (self.rank - 1)])
        apart = make("Reshape", [places, column]).output[0]
        everywhere = make("Expand", [apart, make("Shape", [self.data]).output[0]]).output[0]
        options = {"axis": 0, "reduction": self.reduction}
        given = [base, everywhere, self.data]
        return make("ScatterElements", given, options, dtypes=[self.computed]).output[0]

    def counts(self, places: str, rows: str) -> str:
        """How many rows each segment has, as a column."""
        make, name = self.context.make_node, self.name
        zero, one = (constant(self.context, name, value) for value in (0, 1))
        base = make("Expand", [zero, rows]).output[0]
        ones = make("Expand", [one, make("Shape", [places]).output[0]]).output[0]
        options = {"axis": 0, "reduction": "add"}
        counts = make("ScatterElements", [base, places, ones], options).output[0]
        column = constant(self.context, name, [-1, *[1] * (self.rank - 1)])
        return make("Reshape", [counts, column]).output[0]

    def give(self, tensor: str) -> None:
        """Puts the tensor in the place of the node."""
        if self.computed == self.dtype:
            self.context.make_node("Identity", [tensor], **self.to)
        else:
            self.context.make_node("Cast", [tensor], {"to": self.dtype}, **self.to)


_COMPUTED = {
    TensorProto.FLOAT16: TensorProto.FLOAT,
    **dict.fromkeys([TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16], TensorProto.INT32),
    TensorProto.UINT16: TensorProto.INT32,
    TensorProto.UINT32: TensorProto.INT64,
}


def _least(kind: str, dtype: int) -> Any:
    """What a segment without rows has: for a maximum the least number, which is not -infinity."""
    numpy_type = np.dtype(tensor_dtype_to_np_dtype(dtype))
    if kind not in ("Max", "Min"):
        return int(kind == "Prod")
    limits = np.finfo(numpy_type) if numpy_type.kind == "f" else np.iinfo(numpy_type)
    return limits.min if kind == "Max" else limits.max
