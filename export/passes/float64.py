"""What onnxruntime computes in float32 alone, for float64: written out in operations that it has.

    y[b, o, i] = sum over places k of the window of  W[o, :, k] . x[b, :, i * stride + k]

so a convolution is a slice and a product for each place of its window, and a mean of windows a
slice for each. Slow, but right to the last digits, which is what float64 is for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, set_all

_DOUBLE = onnx.TensorProto.DOUBLE
_TO_THE_END = 2**63 - 1
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805  # float32 in the attributes
_AXES = "defghij"
_FIRST = 2  # the first axis behind those of rows and channels

Place = tuple[int, ...]
Product = Callable[[str, Place], str]
"""What is made of the steps at a place of the window."""


def write_out_float64(model: onnx.ModelProto) -> None:
    """Replaces the nodes in float64 that onnxruntime has no kernels for, where that is known here.

    The nodes of a graph must stand behind those that they read.
    """
    if not _has_float64(model):
        return
    doubles = set(_doubles(model))
    weights = {t.name: t for graph in nested_graphs(model.graph) for t in graph.initializer}
    for graph in list(nested_graphs(model.graph)):
        nodes: list[onnx.NodeProto] = []
        for node in [copied(node) for node in graph.node]:
            write = _WRITTEN.get(node.op_type) if node.output[0] in doubles else None
            parts = _Parts(node, model.graph, weights)
            result = None if write is None else write(parts)
            if result is None:
                nodes.append(node)
            else:
                parts.nodes[-1].output[0] = node.output[0]
                nodes += parts.nodes
        set_all(graph.node, nodes)


def _has_float64(model: onnx.ModelProto) -> bool:
    """Whether something in a model says so; this is quicker than to infer it."""
    graphs = list(nested_graphs(model.graph))
    types = {value.type.tensor_type.elem_type for value in model.graph.input}
    types |= {weight.data_type for graph in graphs for weight in graph.initializer}
    casts = (node for graph in graphs for node in graph.node if node.op_type == "Cast")
    return _DOUBLE in types or any(a.i == _DOUBLE for node in casts for a in node.attribute)


def _doubles(model: onnx.ModelProto) -> Iterator[str]:
    """The names of the tensors that are of float64."""
    inferred = onnx.shape_inference.infer_shapes(model)
    for graph in nested_graphs(inferred.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type == _DOUBLE:
                yield value.name


class _Parts:
    """The nodes that stand for one; the last of them gives what it gave."""

    def __init__(
        self, node: onnx.NodeProto, outermost: onnx.GraphProto, weights: dict[str, onnx.TensorProto]
    ):
        self.node, self.nodes = node, list[onnx.NodeProto]()
        self.options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        self._outermost, self._weights = outermost, weights

    def __call__(self, op_type: str, *given: Any, **options: Any) -> str:
        """The tensor that an operation gives for tensors by name, or for arrays and numbers."""
        names = [value if isinstance(value, str) else self._constant(value) for value in given]
        result = f"{self.node.output[0]}/{len(self.nodes)}"
        made = onnx.helper.make_node(op_type, names, [result], self.node.name, **options)
        self.nodes.append(made)
        return result

    def weight(self, place: int) -> np.ndarray | None:
        """The input at this place, if it is a weight."""
        found = self._weights.get(self.node.input[place])
        return None if found is None else onnx.numpy_helper.to_array(found)

    def _constant(self, value: Any) -> str:
        array = np.asarray(value, None if isinstance(value, np.ndarray) else "float64")
        name = f"{self.node.output[0]}/constant__{len(self._outermost.initializer)}"
        self._outermost.initializer.append(onnx.numpy_helper.from_array(array, name))
        return name


def _leaky_relu(parts: _Parts) -> str:
    x = parts.node.input[0]
    return parts("Where", parts("Less", x, 0), parts("Mul", x, parts.options.get("alpha", 0.01)), x)


def _elu(parts: _Parts) -> str:
    return _elu_of(parts, parts.options.get("alpha", 1.0))


def _elu_of(parts: _Parts, alpha: float) -> str:
    x = parts.node.input[0]
    below = parts("Mul", parts("Sub", parts("Exp", parts("Min", x, 0)), 1), alpha)
    return parts("Where", parts("Less", x, 0), below, x)


def _selu(parts: _Parts) -> str:
    return parts("Mul", _elu_of(parts, _SELU_ALPHA), _SELU_SCALE)


def _softplus(parts: _Parts) -> str:
    x = parts.node.input[0]
    rest = parts("Log", parts("Add", parts("Exp", parts("Neg", parts("Abs", x))), 1))
    return parts("Add", parts("Max", x, 0), rest)


def _softsign(parts: _Parts) -> str:
    x = parts.node.input[0]
    return parts("Div", x, parts("Add", parts("Abs", x), 1))


def _convolution(parts: _Parts) -> str | None:
    kernel = parts.weight(1)
    if kernel is None:
        return None
    filters, read, *widths = kernel.shape
    groups, rank = parts.options.get("group", 1), len(widths)
    at_place = kernel.transpose(*range(_FIRST, kernel.ndim), 0, 1)
    x = _padded(parts, parts.node.input[0], widths)

    def scaled(part: str, place: Place) -> str:
        return parts("Mul", part, _column(at_place[place], rank))

    def mixed(own: np.ndarray) -> Product:
        equation = f"ac{_AXES[:rank]},bc->ab{_AXES[:rank]}"
        return lambda part, place: parts("Einsum", part, own[place].copy(), equation=equation)

    if groups == 1:
        y = _sum(parts, x, widths, mixed(at_place))
    elif read == 1:
        if filters > groups:
            x = parts("Gather", x, np.arange(filters) // (filters // groups), axis=1)
        y = _sum(parts, x, widths, scaled)
    else:
        channels = np.arange(groups * read).reshape(groups, read)
        each = zip(channels, np.split(at_place, groups, axis=-2), strict=True)
        sums = [
            _sum(parts, parts("Gather", x, own, axis=1), widths, mixed(part)) for own, part in each
        ]
        y = parts("Concat", *sums, axis=1)
    if len(parts.node.input) < 3 or not parts.node.input[2]:
        return y
    bias = parts.weight(2)
    return None if bias is None else parts("Add", y, _column(bias, rank))


def _average_pool(parts: _Parts) -> str | None:
    widths = parts.options["kernel_shape"]
    if parts.options.get("ceil_mode") or parts.options.get("count_include_pad"):
        return None
    given = parts.node.input[0]
    x = _padded(parts, given, widths)
    total = _sum(parts, x, widths, lambda part, _: part)
    if x == given:
        return parts("Div", total, math.prod(widths))
    ones = _padded(parts, parts("Expand", 1, parts("Shape", given)), widths)
    return parts("Div", total, _sum(parts, ones, widths, lambda part, _: part))


def _sum(parts: _Parts, x: str, widths: Sequence[int], product: Product) -> str:
    """The sum over the places of a window of what is made of the steps there."""
    rank = len(widths)
    steps, dilations = (_of_axes(parts, name, rank) for name in ("strides", "dilations"))
    axes = np.arange(_FIRST, _FIRST + rank)
    terms = []
    for place in itertools.product(*map(range, widths)):
        starts = np.array(place) * dilations
        before_end = (np.array(widths) - 1) * dilations - starts
        ends = np.where(before_end > 0, -before_end, _TO_THE_END)
        terms.append(product(parts("Slice", x, starts, ends, axes, steps), place))
    return parts("Sum", *terms)


def _padded(parts: _Parts, x: str, widths: Sequence[int]) -> str:
    rank = len(widths)
    steps, dilations = (_of_axes(parts, name, rank) for name in ("strides", "dilations"))
    reach = (np.array(widths) - 1) * dilations
    if parts.options.get("auto_pad") != b"SAME_UPPER":
        pads = np.array(parts.options.get("pads", [0] * 2 * rank))
        before, after = pads[:rank], pads[rank:]
    elif (steps == 1).all():
        before, after = reach // 2, reach - reach // 2
    else:
        return _padded_by_size(parts, x, steps, reach)
    if not (before.any() or after.any()):
        return x
    none = [0] * _FIRST
    return parts("Pad", x, np.array([*none, *before, *none, *after]))


def _padded_by_size(parts: _Parts, x: str, steps: np.ndarray, reach: np.ndarray) -> str:
    """As many windows as there are strides in each axis, however long it turns out to be."""
    sizes = parts("Slice", parts("Shape", x), np.array([_FIRST]), np.array([_TO_THE_END]))
    windows = parts("Div", parts("Add", sizes, steps - 1), steps)
    wanted = parts("Add", parts("Mul", parts("Sub", windows, np.array(1)), steps), reach + 1)
    total = parts("Max", parts("Sub", wanted, sizes), np.array(0))
    before = parts("Div", total, np.array(2))
    none = np.zeros(_FIRST, "int64")
    pads = parts("Concat", none, before, none, parts("Sub", total, before), axis=0)
    return parts("Pad", x, pads)


def _of_axes(parts: _Parts, name: str, rank: int) -> np.ndarray:
    return np.array(parts.options.get(name, [1] * rank))


def _column(values: np.ndarray, rank: int) -> np.ndarray:
    """One value for each channel."""
    return values.reshape(-1, *[1] * rank)


_WRITTEN: dict[str, Callable[[_Parts], str | None]] = {
    "AveragePool": _average_pool,
    "Conv": _convolution,
    "Elu": _elu,
    "LeakyRelu": _leaky_relu,
    "Selu": _selu,
    "Softplus": _softplus,
    "Softsign": _softsign,
}
