"""How two ONNX graphs of one model differ, whatever the names inside them are.

Both are walked from their outputs towards their inputs in step; where they part, the earliest place
in the order of computation is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Alteration:
    """A difference between two graphs.

    Args:
        position: int, where in the expected graph the node stands, or the one it is inside of.
        node: str, the node's name, or its first output where it has none.
        message: str, what is different there.
    """

    position: int
    node: str
    message: str


class _Scope:
    """A graph with its constants and producers; a loop's body sees the scope around it too."""

    def __init__(self, graph: onnx.GraphProto, outer: _Scope | None = None):
        self.graph, self.outer = graph, outer
        self.inputs = [value.name for value in graph.input]
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.positions = {id(node): i for i, node in enumerate(graph.node)}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def home(self, name: str) -> _Scope:
        """The scope in which a tensor is made."""
        here = name in self.producers or name in self.constants or name in self.inputs
        return self if here or self.outer is None else self.outer.home(name)


class GraphWalk:
    """Compares a graph with the expected one; `alterations` are in the order of computation."""

    def __init__(self, expected: onnx.ModelProto, found: onnx.ModelProto):
        self._met: set[tuple[int, str, int, str]] = set()
        self._pending: list[tuple[_Scope, str, _Scope, str, int, str]] = []
        self._found: list[Alteration] = []
        mine, theirs = _Scope(expected.graph), _Scope(found.graph)
        self._pair_outputs(mine, theirs, len(expected.graph.node), "the graph")
        while self._pending:
            self._compare_tensors(*self._pending.pop())
        self.alterations = sorted(self._found, key=lambda alteration: alteration.position)

    def _pair_outputs(self, mine: _Scope, theirs: _Scope, position: int, node: str) -> None:
        names = [value.name for value in mine.graph.output]
        others = [value.name for value in theirs.graph.output]
        if len(names) != len(others):
            self._note(position, node, f"gives {len(others)} outputs, not {len(names)}")
        for name, other in zip(names, others, strict=False):
            self._pending.append((mine, name, theirs, other, position, node))

    def _note(self, position: int, node: str, message: str) -> None:
        self._found.append(Alteration(position, node, message))

    def _compare_tensors(
        self, mine: _Scope, name: str, theirs: _Scope, other: str, position: int, reader: str
    ) -> None:
        mine, theirs = mine.home(name), theirs.home(other)
        key = (id(mine), name, id(theirs), other)
        if key in self._met:
            return
        self._met.add(key)
        if name in mine.constants and other in theirs.constants:
            message = _constants_differ(mine.constants[name], theirs.constants[other])
            if message is not None:
                self._note(position, reader, f"reads the constant '{other}', which {message}")
        elif name in mine.producers and other in theirs.producers:
            self._compare_nodes(mine, name, theirs, other, position)
        elif name in mine.inputs and other in theirs.inputs:
            if mine.inputs.index(name) != theirs.inputs.index(other):
                self._note(position, reader, f"reads the input '{other}', not '{name}'")
        elif name or other:
            self._note(position, reader, f"reads '{other or 'nothing'}', not '{name or 'nothing'}'")

    def _compare_nodes(
        self, mine: _Scope, name: str, theirs: _Scope, other: str, outer_position: int
    ) -> None:
        node, twin = mine.producers[name], theirs.producers[other]
        # Nodes of a loop's body stand where the loop stands.
        position = mine.positions[id(node)] if mine.outer is None else outer_position
        called = node.name or node.output[0]
        if node.op_type != twin.op_type:
            self._note(position, called, f"is '{twin.op_type}', not '{node.op_type}'")
            return
        if list(node.output).index(name) != list(twin.output).index(other):
            self._note(position, called, f"gives '{other}' where '{name}' is expected")
        self._compare_attributes(mine, node, theirs, twin, position)
        if len(node.input) != len(twin.input):
            message = f"reads {len(twin.input)} tensors {list(twin.input)}, not {len(node.input)}"
            self._note(position, called, message)
        for tensor, its in zip(node.input, twin.input, strict=False):
            self._pending.append((mine, tensor, theirs, its, position, called))

    def _compare_attributes(
        self,
        mine: _Scope,
        node: onnx.NodeProto,
        theirs: _Scope,
        twin: onnx.NodeProto,
        position: int,
    ) -> None:
        called = node.name or node.output[0]
        expected = {attribute.name: attribute for attribute in node.attribute}
        found = {attribute.name: attribute for attribute in twin.attribute}
        for key in sorted({*expected, *found}):
            if key not in expected or key not in found:
                has = "has" if key in found else "lacks"
                self._note(position, called, f"{has} the attribute '{key}'")
            elif expected[key].type == onnx.AttributeProto.GRAPH:
                inner = _Scope(expected[key].g, mine), _Scope(found[key].g, theirs)
                self._pair_outputs(*inner, position, called)
            elif expected[key] != found[key]:
                values = [onnx.helper.get_attribute_value(side[key]) for side in (found, expected)]
                self._note(position, called, f"has {key}={values[0]}, not {values[1]}")


def layer_of(
    graph: onnx.GraphProto,
    node_name: str,
    scopes: Mapping[str, str],
    position: int | None = None,
) -> str | None:
    """The layer that a node belongs to, by its name or else those of its readers and sources.

    Args:
        graph: the graph of the node.
        node_name: the node's name, or its first output where it has none.
        scopes: the layer of each TensorFlow name scope: node names begin with their scope.
        position: int, the node's place in the graph, or that of the loop or branch that holds it:
            names are unique in their own graph only.
    """
    by_name = {node.name or node.output[0]: node for node in graph.node}
    if position is not None and position < len(graph.node):
        named = graph.node[position]
    else:
        named = by_name.get(node_name)
    layer = _layer_in(node_name, scopes)
    if layer is not None or named is None:
        return layer
    for follow in (_readers, _sources):
        seen, pending = set(), [named]
        while pending:
            node = pending.pop(0)
            layer = _layer_in(node.name, scopes)
            if layer is not None:
                return layer
            for other in follow(graph, node):
                if id(other) not in seen:
                    seen.add(id(other))
                    pending.append(other)
    return None


def _layer_in(name: str, scopes: Mapping[str, str]) -> str | None:
    """The innermost layer whose scope a name such as `model/gru_1/while/MatMul` lies in."""
    within = [scope for scope in scopes if name.startswith(f"{scope}/")]
    return scopes[max(within, key=len)] if within else None


def _readers(graph: onnx.GraphProto, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    made = set(node.output)
    return (other for other in graph.node if made & set(other.input))


def _sources(graph: onnx.GraphProto, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    read = set(node.input)
    return (other for other in graph.node if read & set(other.output))


def _constants_differ(expected: onnx.TensorProto, found: onnx.TensorProto) -> str | None:
    want, have = numpy_helper.to_array(expected), numpy_helper.to_array(found)
    if want.dtype != have.dtype or want.shape != have.shape:
        return f"is {have.dtype} {list(have.shape)}, not {want.dtype} {list(want.shape)}"
    differs = (want != have) & ~((want != want) & (have != have))
    if not np.any(differs):
        return None
    index = tuple(int(i) for i in np.argwhere(differs)[0])
    count = int(np.sum(differs))
    return (
        f"differs in {count} of {want.size} elements: at {list(index)} the file has "
        f"{have[index]}, the model gives {want[index]}"
    )
