"""Segments reduced: `tf.reduce_sum` of ragged rows, `tf.math.segment_max`, unsorted ones too.

tf2onnx sorts the segments, and fails where there are no values. Here each value is reduced into the
place that it names. Values of a negative segment go to a place behind the others, which is dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.arrays.scatter import element_places
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts

_REDUCTIONS = {"Sum": ("add", 16), "Mean": ("add", 16), "Prod": ("mul", 16)}
_REDUCTIONS |= {"Max": ("max", 18), "Min": ("min", 18)}
"""For each kind the reduction of ScatterElements, and the opset that has it."""


@converts(*(f"UnsortedSegment{kind}" for kind in _REDUCTIONS if kind != "Mean"))
def convert_unsorted_segments(context: Any, node: Any, name: str, args: Any) -> None:
    """Segments in any order, whose number is given; an empty one is what reduces to anything."""
    kind = node.type.removeprefix("UnsortedSegment")
    values, segments, count = node.input
    to = _result(node)
    context.remove_node(name)
    build = _Builder(context, name, kind, values, segments)
    number = build("Reshape", cast(context, count, TensorProto.INT64), [1])
    build.finish(build.reduced(number), to)


@converts(*(f"Segment{kind}" for kind in _REDUCTIONS))
def convert_sorted_segments(context: Any, node: Any, name: str, args: Any) -> None:
    """Segments in order, as many as the last one says; an empty one is 0, and 1 for products."""
    kind = node.type.removeprefix("Segment")
    values, segments = node.input
    to = _result(node)
    context.remove_node(name)
    build = _Builder(context, name, kind, values, segments)
    last = build("ReduceMax", build("Concat", build.segments, [-1], axis=0), [0], keepdims=1)
    number = build("Add", last, [1])
    reduced = build.reduced(number)
    if kind in ("Mean", "Max", "Min"):
        counted = build.counted(number)
        one = constant(context, name, 1, build.numpy_type)
        zero = constant(context, name, 0, build.numpy_type)
        if kind == "Mean":
            reduced = build("Div", reduced, build("Max", counted, one))
        else:
            reduced = build("Where", build("Greater", counted, zero), reduced, zero)
    build.finish(reduced, to)


def _result(node: Any) -> dict[str, Any]:
    """What the last node in place of this one gives."""
    given = {"shapes": node.output_shapes, "dtypes": node.output_dtypes}
    return {"name": node.name, "outputs": list(node.output), **given}


class _Builder:
    """The nodes of one reduction. Called with an op and what it takes, it gives what that gives."""

    def __init__(self, context: Any, name: str, kind: str, values: str, segments: str):
        self.context, self.name = context, name
        self.reduction, oldest = _REDUCTIONS[kind]
        if context.opset < oldest:
            raise ExportError(
                f"node '{name}' reduces segments, and ONNX has the {self.reduction} for it since "
                f"opset {oldest}. Choose opset_version={oldest} or more (--opset)."
            )
        self.rank = context.get_rank(values)
        if self.rank is None or context.get_rank(segments) != 1:
            raise ExportError(
                f"node '{name}' reduces segments of values, of which the rank must be known, by a "
                "vector of segments. Give the values a rank with tf.ensure_shape."
            )
        given = context.get_dtype(values)
        # ScatterElements reduces no float16.
        self.dtype = TensorProto.FLOAT if given == TensorProto.FLOAT16 else given
        self.numpy_type = tensor_dtype_to_np_dtype(self.dtype)
        self.values = cast(context, values, self.dtype)
        self.segments = cast(context, segments, TensorProto.INT64)
        self.identity = self._identity(kind)

    def __call__(self, op_type: str, *given: Any, **attr: Any) -> str:
        names = [
            part if isinstance(part, str) else constant(self.context, self.name, part)
            for part in given
        ]
        return self.context.make_node(op_type, names, attr).output[0]

    def _identity(self, kind: str) -> Any:
        if kind not in ("Max", "Min"):
            return 1 if kind == "Prod" else 0
        floating = np.issubdtype(self.numpy_type, np.floating)
        limits = (np.finfo if floating else np.iinfo)(self.numpy_type)
        return limits.min if kind == "Max" else limits.max

    def reduced(self, number: str) -> str:
        """The values of each of so many segments as one."""
        inner = self("Slice", self("Shape", self.values), [1], [self.rank])
        return self._scatter(self.values, number, inner, self.identity, self.reduction)

    def counted(self, number: str) -> str:
        """How many values each segment has, with an axis for every axis of the values."""
        ones = constant(self.context, self.name, [1] * (self.rank - 1))
        sizes = self("Concat", self("Shape", self.segments), ones, axis=0)
        one = constant(self.context, self.name, 1, self.numpy_type)
        counts = self("Expand", one, sizes)
        self.context.set_shape(counts, [-1] * self.rank)
        return self._scatter(counts, number, ones, 0, "add")

    def _scatter(self, values: str, number: str, inner: str, start: Any, reduction: str) -> str:
        first = constant(self.context, self.name, start, self.numpy_type)
        sizes = self("Concat", self("Add", number, [1]), inner, axis=0)
        negative = self("Less", self.segments, [0])
        place = self("Unsqueeze", self("Where", negative, number, self.segments), [1])
        everywhere = self("Expand", first, sizes)
        self.context.set_dtype(everywhere, self.dtype)
        places = element_places(self.context, place, values, self.name)
        data = self("ScatterElements", everywhere, places, values, axis=0, reduction=reduction)
        return self("Slice", data, [0], number)

    def finish(self, tensor: str, to: dict[str, Any]) -> None:
        """Gives the tensor the name and the element type of what the TensorFlow op gave."""
        self.context.make_node("Cast", [tensor], {"to": to["dtypes"][0]}, **to)
