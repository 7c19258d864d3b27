"""Transposed convolutions, whatever the stride and however little is known of the sizes.

TensorFlow gives the size of the result, of which ONNX's full one is a part: n steps of a kernel of
width k reach (n - 1) stride + k. tf2onnx makes pads of the difference, also where it is negative
(a stride past the kernel leaves zeros at the end), and takes a size that comes to light when the
model runs for one without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnx import TensorProto

from keras_blocks.export.lowerings.ops.node_builder import constant
from keras_blocks.export.lowerings.registry import converts


@converts("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def convert_conv_transpose(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's ConvTranspose with channels first, cut to the size."""
    sizes, kernel, given, *bias = node.input
    convolution = _Convolution.of(context, node)
    rank, axes = convolution.rank, convolution.axes
    outputs, shape, dtype = list(node.output), node.output_shapes[0], node.output_dtypes[0]
    build = _Builder(context, name, dtype)
    known = _known_sizes(node.inputs[0], shape, axes)
    steps = [context.get_shape(given)[axis] for axis in axes]
    context.remove_node(name)

    first = [0, rank - 1, *range(1, rank - 1)] if convolution.channels_last else [*range(rank)]
    last = [0, *range(2, rank), 1] if convolution.channels_last else [*range(rank)]
    x = build("Transpose", given, perm=first)
    # (..., out, in) here, (in, out, ...) there.
    weights = build("Transpose", kernel, perm=[rank - 1, rank - 2, *range(rank - 2)])
    if known is not None and min(steps) >= 0:
        attributes = convolution.attributes(convolution.surplus(steps, known))
        y = build("ConvTranspose", x, weights, *bias, **attributes)
    else:
        y = build("ConvTranspose", x, weights, *bias, **convolution.attributes())
        y = _of_size(build, y, sizes, convolution)
    context.make_node(
        "Transpose", [y], {"perm": last}, outputs=outputs, name=name, shapes=[shape], dtypes=[dtype]
    )


@dataclass(frozen=True)
class _Convolution:
    """The attributes of the node along the axes of space."""

    rank: int
    channels_last: bool
    same: bool
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @classmethod
    def of(cls, context: Any, node: Any) -> _Convolution:
        """Those of a node."""
        kernel = context.get_shape(node.input[1])
        rank = len(kernel)
        channels_last = node.get_attr_value("data_format", b"NHWC").endswith(b"C")
        axes = _axes(rank, channels_last)
        dilations = node.get_attr_value("dilations", [1] * rank)
        return cls(
            rank=rank,
            channels_last=channels_last,
            same=node.get_attr_value("padding") == b"SAME",
            widths=tuple(kernel[: rank - 2]),
            strides=tuple(node.get_attr_value("strides")[axis] for axis in axes),
            dilations=tuple(dilations[axis] for axis in axes),
        )

    @property
    def axes(self) -> range:
        """Of space, in TensorFlow's tensors."""
        return _axes(self.rank, self.channels_last)

    def surplus(self, steps: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """By how much the full result is larger than the sizes along each axis, or smaller."""
        along = zip(steps, sizes, self.widths, self.strides, self.dilations, strict=True)
        return [
            (n - 1) * stride + (width - 1) * dilation + 1 - size
            for n, size, width, stride, dilation in along
        ]

    @property
    def most_missing(self) -> list[int]:
        """By how much the sizes may be larger than the full result: less than a stride."""
        return [stride - 1 for stride in self.strides]

    def attributes(self, surplus: Sequence[int] | None = None) -> dict[str, Any]:
        """Of the ONNX node, which cuts off the surplus, the odd one behind, and adds what is
        missing; without a surplus it adds the most that may be."""
        surplus = [-size for size in self.most_missing] if surplus is None else surplus
        cut = [max(0, size) for size in surplus]
        return {
            "kernel_shape": list(self.widths),
            "strides": list(self.strides),
            "dilations": list(self.dilations),
            "pads": [*(size // 2 for size in cut), *(size - size // 2 for size in cut)],
            "output_padding": [max(0, -size) for size in surplus],
        }


def _axes(rank: int, channels_last: bool) -> range:
    return range(1, rank - 1) if channels_last else range(2, rank)


class _Builder:
    """Makes nodes beside the one that is converted."""

    def __init__(self, context: Any, name: str, dtype: int):
        self.context, self.name, self.dtype = context, name, dtype

    def __call__(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """The output of a new node, of the node's element type."""
        return self._made(op_type, inputs, attributes, self.dtype)

    def sizes(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """The output of a new node for sizes."""
        return self._made(op_type, inputs, attributes, TensorProto.INT64)

    def constant(self, values: Sequence[int]) -> str:
        """Sizes that are known."""
        return constant(self.context, self.name, values)

    def _made(self, op_type: str, inputs: Sequence[str], attributes: Any, dtype: int) -> str:
        return self.context.make_node(op_type, list(inputs), attributes, dtypes=[dtype]).output[0]


def _known_sizes(sizes: Any, shape: Sequence[int], axes: range) -> list[int] | None:
    """The sizes of the result along these axes, if they are all known."""
    values = sizes.get_tensor_value() if sizes.is_const() else shape
    known = [values[axis] for axis in axes]
    return known if min(known) >= 0 else None


def _of_size(build: _Builder, full: str, sizes: str, convolution: _Convolution) -> str:
    """Cuts the result to sizes that only the run knows."""
    space = build.constant(range(2, convolution.rank))
    wanted = build.sizes(
        "Gather",
        build.sizes("Cast", sizes, to=TensorProto.INT64),
        build.constant(convolution.axes),
    )
    start = build.constant([0] * len(convolution.axes))
    if convolution.same:
        present = build.sizes("Gather", build.sizes("Shape", full), space)
        added = build.constant(convolution.most_missing)
        surplus = build.sizes("Sub", build.sizes("Sub", present, added), wanted)
        surplus = build.sizes("Max", surplus, start)
        start = build.sizes("Div", surplus, build.constant([2]))
    return build("Slice", full, start, build.sizes("Add", start, wanted), space)
