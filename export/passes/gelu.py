"""The Gaussian error linear unit, in the form that onnxruntime computes at once.

TensorFlow writes x / 2 erfc(-x / sqrt(2)), or the approximation by tanh, in six to eight
operations; onnxruntime takes a third or a quarter of the time for the one that ONNX has for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import pi, sqrt

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, set_all
from keras_blocks.export.passes.opset.newest import offers

SINCE = 20
# Constants are rounded to the model's element type, half precision at least.
_NEAR = 1e-3
_FUSED_TYPES = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)


def fuse_gelu(graph: onnx.GraphProto, opset: int) -> None:
    """Replaces what computes a gelu by a Gelu; what was read on the way is pruned later."""
    weights = {weight.name: weight for weight in graph.initializer}
    for inner in nested_graphs(graph):
        around = _Surroundings({name: n for n in inner.node for name in n.output}, weights)
        gelus = {place: _gelu_for(node, around) for place, node in enumerate(inner.node)}
        if any(gelus.values()) and offers(opset, SINCE):
            nodes = [gelus[place] or copied(node) for place, node in enumerate(inner.node)]
            set_all(inner.node, nodes)


class _Surroundings:
    """What computes a tensor, and which are constant numbers."""

    def __init__(
        self, producers: Mapping[str, onnx.NodeProto], weights: Mapping[str, onnx.TensorProto]
    ):
        self._producers, self._weights = producers, weights

    def operands(self, name: str, op_type: str) -> Iterator[tuple[str, ...]]:
        """The inputs of what gives a tensor if it is such an op, in either order."""
        node = self._producers.get(name)
        if node is not None and node.op_type == op_type:
            yield tuple(node.input)
            if op_type in ("Mul", "Add"):
                yield tuple(reversed(node.input))

    def is_number(self, name: str, value: float, any_rank: bool = False) -> bool:
        """Whether a tensor is this constant; one with axes could add some to the result."""
        weight = self._weights.get(name)
        if weight is None or weight.data_type not in _FUSED_TYPES:
            return False
        if len(weight.dims) and not any_rank:
            return False
        values = onnx.numpy_helper.to_array(weight)
        return values.size == 1 and bool(np.isclose(values.item(), value, rtol=_NEAR))

    def times(self, name: str, value: float) -> Iterator[str]:
        """The other factors, if a tensor is something times this number."""
        for number, other in self.operands(name, "Mul"):
            if self.is_number(number, value):
                yield other

    def plus_one(self, name: str) -> Iterator[str]:
        """The other terms, if a tensor is 1 and something."""
        for number, other in self.operands(name, "Add"):
            if self.is_number(number, 1.0):
                yield other


def _gelu_for(node: onnx.NodeProto, around: _Surroundings) -> onnx.NodeProto | None:
    if node.op_type != "Mul":
        return None
    for half, other in (tuple(node.input), tuple(reversed(node.input))):
        for x in around.times(half, 0.5):
            for approximation, finds in (("none", _is_erfc), ("tanh", _is_tanh)):
                if finds(x, other, around):
                    scope = node.name.rpartition("/")[0]
                    name = f"{scope}/Gelu" if scope else "Gelu"
                    attributes = {} if approximation == "none" else {"approximate": approximation}
                    return onnx.helper.make_node("Gelu", [x], node.output, name, **attributes)
    return None


def _is_erfc(x: str, other: str, around: _Surroundings) -> bool:
    """erfc(-x / sqrt(2)), which is 1 - erf of the same."""
    # The 1 is from the converter of Erfc; tf2onnx gives it axes where it moves a transpose past it.
    return any(
        around.is_number(one, 1.0, any_rank=True)
        and any(negated == x for (negated,) in around.operands(z, "Neg"))
        for one, erf in around.operands(other, "Sub")
        for (scaled,) in around.operands(erf, "Erf")
        for z in around.times(scaled, 1 / sqrt(2))
    )


def _is_tanh(x: str, other: str, around: _Surroundings) -> bool:
    """1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))."""
    return any(
        left == x and any(_is_cube(cube, x, around) for cube in around.times(right, 0.044715))
        for tanh in around.plus_one(other)
        for (scaled,) in around.operands(tanh, "Tanh")
        for total in around.times(scaled, sqrt(2 / pi))
        for left, right in around.operands(total, "Add")
    )


def _is_cube(name: str, x: str, around: _Surroundings) -> bool:
    power = any(
        base == x and around.is_number(exponent, 3.0)
        for base, exponent in around.operands(name, "Pow")
    )
    return power or any(
        left == x and any(set(square) == {x} for square in around.operands(right, "Mul"))
        for left, right in around.operands(name, "Mul")
    )
