"""What `quantize` leaves in float32, and why, in words."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import onnx

from keras_blocks.export.files.int8.tools import MIN_ELEMENTS, Choice, Static, float_shapes
from keras_blocks.export.onnx_io.graphs import nested_graphs

# They multiply two tensors, whether these are weights or not.
_PRODUCTS = frozenset({"Attention", "Einsum", "Gemm", "MatMul", "MultiHeadAttention"})
Shapes = Mapping[str, Sequence[int]]


def left_in_float(model: onnx.ModelProto, chosen: Sequence[Choice]) -> tuple[str, ...]:
    """The nodes that still compute in float32, by the reason, in words.

    Args:
        model: the quantised model.
        chosen: what was to be quantised.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    constants: set[str] = set()
    left: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for graph in nested_graphs(model.graph):
        shapes |= float_shapes(graph)
        constants |= _constants(graph, constants)
        for node in graph.node:
            reason = _weights_left(node, shapes, chosen, graph is not model.graph)
            if reason is None and _is_of_activations(node, constants):
                reason = " that multiply what is computed (as attention does): no weights to store"
            if reason is not None:
                left[reason][node.op_type] += 1
    return tuple(
        ", ".join(f"{count} {op}" for op, count in ops.most_common()) + f" left{reason}"
        for reason, ops in left.items()
    )


def _weights_left(
    node: onnx.NodeProto, shapes: Shapes, chosen: Sequence[Choice], inside: bool
) -> str | None:
    """Why the weights of a node are in float32; None if they are not, or it has none."""
    sizes = {name: math.prod(shapes[name]) for name in node.input if name in shapes}
    most = max(sizes.values(), default=0)
    if most >= MIN_ELEMENTS:
        return f" with large float32 weights ({_reason(node, shapes, chosen, inside)})"
    if most > 1 and any(node.op_type in choice.smallest for choice in chosen):
        return f", whose weights have fewer than {MIN_ELEMENTS} elements"
    return None


def _reason(node: onnx.NodeProto, shapes: Shapes, chosen: Sequence[Choice], inside: bool) -> str:
    op = node.op_type
    choice = next((choice for choice in chosen if op in choice.tool.places), None)
    if choice is None and op in Static.places:
        return "only calibration= (--calibration) can"
    if choice is None:
        return "onnxruntime has no int8 form; weights_only=True (--weights-only) stores them small"
    if op in choice.tool.slower and op not in choice.smallest:
        return (
            f"they would be slower; ops=['{op}'] (--op {op}) for the size, "
            f"calibration= (--calibration) for both"
        )
    if not any(op in other.smallest for other in chosen):
        return "it is not among ops"
    if inside and not choice.tool.everywhere:
        return "inside loops and branches"
    weights = [shapes.get(node.input[place], ()) for place in choice.tool.places[op]]
    if not all(weights):
        return "weights can be quantised on the other side of the product alone"
    if any(len(shape) < 2 for shape in weights):
        return "they are a single column"
    if any(math.prod(shape) < choice.smallest.get(op, 0) for shape in weights):
        return "they have fewer elements than min_elements"
    return "the tool cannot"


def _is_of_activations(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    """Whether a node multiplies tensors none of which is constant."""
    return node.op_type in _PRODUCTS and not any(name in constants for name in node.input[:2])


def _constants(graph: onnx.GraphProto, outside: Collection[str]) -> set[str]:
    """The weights of a graph, and what it computes of weights alone."""
    found = {weight.name for weight in graph.initializer}
    for node in graph.node:
        if all(name in found or name in outside for name in node.input if name):
            found.update(node.output)
    return found
