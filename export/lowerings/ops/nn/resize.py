"""Images resized by a cubic, Lanczos or other kernel, as one product for each of the two axes.

    y[o] = sum_i w[o, i] x[i]      w[o, i] = k(|i + 1/2 - s(o)| / r) / sum_i k(...)

where s(o) is the place of the output pixel in the input, and r > 1 widens the kernel of a smaller
image (antialias). onnxruntime's Resize knows no Lanczos, and wants other axes for the cubic kernel
than images have here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts

# TensorFlow looks the weights of its cubic resize up in a table of as many places per pixel.
_TABLE = 1024.0
_NEAR_ZERO = 1e-3  # below which TensorFlow takes sin(x) / x for 1
_RADIUS = {"lanczos3": 3.0, "lanczos5": 5.0, "keyscubic": 2.0, "triangle": 1.0}


class _Arithmetic:
    """Float operations in tf2onnx's graph, constants included."""

    def __init__(self, context: Any, name: str):
        self.context, self.name = context, name

    def number(self, values: Any, dtype: Any = np.float32) -> str:
        return constant(self.context, self.name, values, dtype)

    def __call__(self, op_type: str, *given: Any, **attributes: Any) -> str:
        names = [part if isinstance(part, str) else self.number(part) for part in given]
        return self.context.make_node(op_type, names, attributes).output[0]


@converts("ScaleAndTranslate")
def convert_scale_and_translate(context: Any, node: Any, name: str, args: Any) -> None:
    """The resize of Keras and `tf.image.resize` with antialias, or by a Lanczos kernel."""
    images, size, scale, translation = node.input
    kernel = node.get_attr_value("kernel_type").decode()
    shift = context.get_node_by_output(translation)
    if kernel not in _RADIUS or not shift.is_const() or shift.get_tensor_value(False).any():
        raise ExportError(
            f"node '{name}' scales and moves images by the kernel '{kernel}'; known are "
            f"{', '.join(_RADIUS)}, without a translation"
        )
    antialias = bool(node.get_attr_value("antialias"))

    def weights(do: _Arithmetic, axis: int, sizes: tuple[str, str]) -> str:
        by = do("Gather", scale, do.number(axis, np.int64), axis=0)
        inverse = do("Div", 1.0, by)
        place = do("Mul", do("Add", sizes[1], 0.5), inverse)
        width = do("Max", inverse, 1.0) if antialias else do.number(1.0)
        distance = do("Abs", do("Sub", do("Add", sizes[0], 0.5), place))
        return _kernel(do, kernel, do("Div", distance, width))

    _replace(context, node, images, size, weights)


@converts("ResizeBicubic")
def convert_resize_bicubic(context: Any, node: Any, name: str, args: Any) -> None:
    """The cubic resize about the centres of pixels, by the places of TensorFlow's table."""
    images, size = node.input
    if not node.get_attr_value("half_pixel_centers"):
        raise ExportError(
            f"node '{name}' resizes about the corners of pixels; use half_pixel_centers=True, as "
            "Keras and tf.image.resize do"
        )

    def weights(do: _Arithmetic, axis: int, sizes: tuple[str, str]) -> str:
        counts = [_length(do, images, axis + 1), _wanted(do, size, axis)]
        scale = do("Div", *(cast(context, count, TensorProto.FLOAT) for count in counts))
        place = do("Sub", do("Mul", do("Add", sizes[1], 0.5), scale), 0.5)
        whole = do("Floor", place)
        part = do("Div", do("Round", do("Mul", do("Sub", place, whole), _TABLE)), _TABLE)
        distance = do("Abs", do("Sub", sizes[0], do("Add", whole, part)))
        return _kernel(do, "keyscubic", distance)

    _replace(context, node, images, size, weights)


def _replace(context: Any, node: Any, images: str, size: str, weights: Any) -> None:
    outputs, shapes, dtypes = list(node.output), node.output_shapes, node.output_dtypes
    do = _Arithmetic(context, node.name)
    pixels = cast(context, images, TensorProto.FLOAT)
    matrices = []
    for axis in (0, 1):
        sources = _range(do, _length(do, images, axis + 1))
        column = do("Unsqueeze", _range(do, _wanted(do, size, axis)), do.number([1], np.int64))
        strengths = weights(do, axis, (sources, column))
        total = do("ReduceSum", strengths, do.number([1], np.int64), keepdims=1)
        matrices.append(do("Div", strengths, total))
    context.remove_node(node.name)
    rows, columns = matrices
    shape = do("Shape", images)
    # (batch, height, width * channels), then (batch * new height, width, channels).
    flat = do("Reshape", pixels, do.number([0, 0, -1], np.int64))
    taller = do("MatMul", rows, flat)
    tail = do("Slice", shape, *(do.number([at], np.int64) for at in (2, 4)))
    apart = do("Reshape", taller, do("Concat", do.number([-1], np.int64), tail, axis=0))
    wider = do("MatMul", columns, apart)
    ends = [
        do("Slice", shape, *(do.number([at], np.int64) for at in cut)) for cut in ((0, 1), (3, 4))
    ]
    wanted = cast(context, size, TensorProto.INT64)
    to = do("Concat", ends[0], wanted, ends[1], axis=0)
    context.make_node(
        "Reshape", [wider, to], outputs=outputs, name=node.name, shapes=shapes, dtypes=dtypes
    )


def _length(do: _Arithmetic, images: str, axis: int) -> str:
    return do("Gather", do("Shape", images), do.number(axis, np.int64), axis=0)


def _wanted(do: _Arithmetic, size: str, axis: int) -> str:
    wide = cast(do.context, size, TensorProto.INT64)
    return do("Gather", wide, do.number(axis, np.int64), axis=0)


def _range(do: _Arithmetic, count: str) -> str:
    steps = do("Range", do.number(0, np.int64), count, do.number(1, np.int64))
    return do("Cast", steps, to=TensorProto.FLOAT)


def _kernel(do: _Arithmetic, kernel: str, x: str) -> str:
    """k(x) of x >= 0, which is 0 beyond the kernel's radius."""
    radius = _RADIUS[kernel]
    if kernel == "triangle":
        return do("Max", do("Sub", 1.0, x), 0.0)
    if kernel == "keyscubic":
        near = do("Add", do("Mul", do("Mul", do("Sub", do("Mul", 1.5, x), 2.5), x), x), 1.0)
        far = do("Add", do("Mul", -0.5, x), 2.5)
        far = do("Add", do("Mul", do("Sub", do("Mul", far, x), 4.0), x), 2.0)
        value = do("Where", do("Less", x, 1.0), near, far)
    else:
        angle = do("Mul", x, np.pi)
        both = do("Mul", do("Sin", angle), do("Sin", do("Div", angle, radius)))
        value = do("Div", do("Mul", both, radius), do("Mul", angle, angle))
        value = do("Where", do("Greater", x, _NEAR_ZERO), value, 1.0)
    return do("Where", do("Less", x, radius), value, 0.0)
