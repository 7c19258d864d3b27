"""Transposes move behind what computes the same in any order of the axes, and meet there.

tf2onnx has done so before; this is for the transposes that come out of branches afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from keras_blocks.export.onnx_io.graphs import (
    copied,
    graphs_of,
    nested_graphs,
    read_instead,
    set_all,
)

_ONE_INPUT = frozenset(
    [
        "Cast",
        "Clip",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Tanh",
    ]
)
_TWO_INPUTS = frozenset(["Add", "Div", "Max", "Min", "Mul", "Sub"])
_PASSED = _ONE_INPUT | _TWO_INPUTS | {"Concat", "Shape", "Transpose", "Unsqueeze"}

Producers = Mapping[str, onnx.NodeProto]
Weights = Mapping[str, onnx.TensorProto]


def order_of(node: onnx.NodeProto | None) -> list[int]:
    """The axes of a transpose's input in the order of its output; none if it is no transpose, or
    one that says no order and just turns the axes round."""
    if node is None or node.op_type != "Transpose":
        return []
    return next((list(a.ints) for a in node.attribute if a.name == "perm"), [])


def move_transposes(graph: onnx.GraphProto) -> None:
    """Moves transposes down, and joins those that meet, in this graph and in those inside.

    The nodes of a graph must stand behind those that they read.
    """
    readers: dict[str, set[str]] = {}
    for inner in nested_graphs(graph):
        for node in inner.node:
            for name in node.input:
                readers.setdefault(name, set()).add(node.op_type)
    # One that something else reads too would stay, and another one be added.
    movable = {name for name, op_types in readers.items() if op_types <= _PASSED}
    _Moving(graph, {}, {}, graph, movable).run()


class _Moving:
    """One graph; what is outside is read only, new weights go to the outermost."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        outer: Producers,
        weights: Weights,
        outermost: onnx.GraphProto,
        movable: set[str],
    ):
        self._graph, self._outermost = graph, outermost
        self._producers = dict(outer)
        self._weights = {**weights, **{weight.name: weight for weight in graph.initializer}}
        self._outputs = {value.name for value in graph.output}
        self._movable = movable - self._outputs
        self._same: dict[str, str] = {}

    def run(self) -> None:
        """Moves what can be."""
        kept: list[onnx.NodeProto] = []
        for node in [copied(node) for node in self._graph.node]:
            read_instead(node, self._same)
            moved = self._moved(node)
            for part in [node] if moved is None else [node, moved]:
                if order_of(part):
                    self._join(part)
                kept.append(part)
                self._producers.update(dict.fromkeys(part.output, part))
            for inner in graphs_of(node):
                # What moved into a loop would run in every round.
                outer = self._producers if node.op_type == "If" else {}
                _Moving(inner, outer, self._weights, self._outermost, self._movable).run()
        set_all(self._graph.node, kept)

    def _join(self, node: onnx.NodeProto) -> None:
        """Makes one of two transposes, and nothing of one that changes nothing."""
        source = self._producers.get(node.input[0])
        if source is not None and order_of(source):
            order = [order_of(source)[axis] for axis in order_of(node)]
            node.input[0] = source.input[0]
            set_all(node.attribute, [onnx.helper.make_attribute("perm", order)])
        elif source is not None and self._reshape_instead(node, source):
            return
        if order_of(node) != sorted(order_of(node)):
            return
        if self._outputs.intersection(node.output):
            node.op_type = "Identity"
            del node.attribute[:]
        else:
            self._same[node.output[0]] = node.input[0]

    def _reshape_instead(self, node: onnx.NodeProto, source: onnx.NodeProto) -> bool:
        """Makes one reshape of one and a transpose that moves axes of a single element only."""
        weight = self._weights.get(source.input[1]) if source.op_type == "Reshape" else None
        shape = [] if weight is None else onnx.numpy_helper.to_array(weight).tolist()
        kept = [axis for axis in order_of(node) if axis < len(shape) and shape[axis] != 1]
        # A 0 stands for the size that the axis of this very place has.
        if not shape or 0 in shape or kept != sorted(kept):
            return False
        turned = self._constant(node, np.array([shape[axis] for axis in order_of(node)]))
        node.op_type = "Reshape"
        set_all(node.input, [source.input[0], turned])
        del node.attribute[:]
        return True

    def _moved(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The transpose that now stands behind a node, which reads what the one before it read.

        Behind a Shape it is a Gather.
        """
        sources = [self._producers.get(name) for name in node.input]
        orders = [order_of(source) for source in sources if order_of(source)]
        if not orders or any(order != orders[0] for order in orders) or len(node.output) != 1:
            return None
        moved = {name for name, source in zip(node.input, sources, strict=True) if order_of(source)}
        if node.op_type not in _PASSED or not moved <= self._movable:
            return None
        order = orders[0]
        inputs = [
            source.input[0] if source is not None and order_of(source) else None
            for source in sources
        ]
        behind = self._behind(node, inputs, order)
        if behind is None:
            return None
        result = node.output[0]
        node.output[0] = before = f"{result}/before"
        if node.op_type == "Shape":
            sizes = self._constant(node, np.array(behind))
            return onnx.helper.make_node("Gather", [before, sizes], [result], node.name, axis=0)
        return onnx.helper.make_node("Transpose", [before], [result], node.name, perm=behind)

    def _behind(
        self, node: onnx.NodeProto, inputs: Sequence[str | None], order: list[int]
    ) -> list[int] | None:
        """Makes the node read these instead; gives the order behind it, or None if it cannot."""
        if node.op_type in _ONE_INPUT:
            node.input[0] = inputs[0] or node.input[0]
            return order
        if node.op_type == "Shape" and inputs[0] is not None and not node.attribute:
            node.input[0] = inputs[0]
            return order
        if node.op_type == "Concat" and None not in inputs:
            axis = next(a for a in node.attribute if a.name == "axis")
            axis.i = order[axis.i]
            set_all(node.input, inputs)
            return order
        if node.op_type == "Unsqueeze" and inputs[0] is not None:
            return self._behind_unsqueeze(node, inputs[0], order)
        if node.op_type in _TWO_INPUTS:
            found = [
                name or self._turned(given, order)
                for name, given in zip(inputs, node.input, strict=True)
            ]
            if None not in found:
                set_all(node.input, found)
                return order
        return None

    def _behind_unsqueeze(
        self, node: onnx.NodeProto, source: str, order: list[int]
    ) -> list[int] | None:
        axes = self._weights.get(node.input[1]) if len(node.input) > 1 else None
        values = [] if axes is None else onnx.numpy_helper.to_array(axes).tolist()
        if len(values) != 1 or not 0 <= values[0] < len(order):
            return None
        # The new axis stands before the same one as it did.
        place, before = values[0], order[values[0]]
        node.input[0] = source
        node.input[1] = self._constant(node, np.array([before]))
        wider = [axis + (axis >= before) for axis in order]
        return [*wider[:place], before, *wider[place:]]

    def _turned(self, name: str, order: list[int]) -> str | None:
        """A constant in the order of the axes before the transpose, or None for what is none."""
        weight = self._weights.get(name)
        if weight is None or len(weight.dims) > len(order):
            return None
        if not weight.dims:
            return name
        values = onnx.numpy_helper.to_array(weight)
        values = values.reshape([1] * (len(order) - values.ndim) + list(values.shape))
        back = [order.index(axis) for axis in range(len(order))]
        return self._constant(weight, values.transpose(back))

    def _constant(self, near: onnx.NodeProto | onnx.TensorProto, values: np.ndarray) -> str:
        scope = near.name.rpartition("/")[0]
        name = f"{scope}/constant__{len(self._outermost.initializer)}"
        weight = onnx.numpy_helper.from_array(np.ascontiguousarray(values), name)
        self._outermost.initializer.append(weight)
        self._weights = {**self._weights, name: weight}
        return name
