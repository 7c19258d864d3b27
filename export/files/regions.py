"""The parts of a model without control flow, as models of their own.

onnxruntime's tools for int8 and float16 stumble over graphs inside nodes: they lose tensors that a
branch reads from outside, and quantise a weight that two nodes share only once. So every graph is
cut out alone. Its `If`, `Loop` and `Scan` nodes stay behind: what they give becomes an input of the
part, what they read an output, so that both keep their names and the changed part can be put back.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx
import onnx.helper
import onnx.shape_inference

from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.graphs import copied, graphs_of, nested_graphs, reads, set_all
from keras_blocks.export.passes.deduplication import prune
from keras_blocks.runtime.runner import first_line

Change = Callable[[onnx.ModelProto], onnx.ModelProto | None]
"""Gives a part changed, or None to leave it."""

_CHANGED_IN_PLACE = {"LSTM": (1, 2)}
"""Inputs that the tools change where they are, so that each node needs a copy of its own."""


def change_regions(model: onnx.ModelProto, change: Change, inner: bool) -> onnx.ModelProto:
    """The model with every part changed.

    Args:
        model: what to change; it is left as it is.
        change: what to do with a part.
        inner: bool, whether to change the graphs inside nodes too.
    Raises:
        ExportError: the types of the model cannot be inferred.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=False)
    except Exception as error:  # protobuf's own type differs between its versions
        raise ExportError(
            f"the shapes in the model cannot be inferred ({first_line(error)}); "
            f"weights_only=True (--weights-only) needs none"
        ) from error
    _name_nodes(inferred)
    _Surgery(inferred, change, inner).visit(inferred.graph, {}, {})
    for graph in nested_graphs(inferred.graph):
        del graph.value_info[:]
        read = {name for node in graph.node for name in reads(node)}
        read |= {value.name for value in graph.output}
        set_all(graph.initializer, [copied(w) for w in graph.initializer if w.name in read])
    prune(inferred.graph)
    return inferred


@dataclass
class _Surgery:
    """Cuts, changes and puts back, graph by graph."""

    model: onnx.ModelProto
    change: Change
    inner: bool

    def visit(
        self,
        graph: onnx.GraphProto,
        types: Mapping[str, onnx.ValueInfoProto],
        weights: Mapping[str, onnx.TensorProto],
    ) -> None:
        """Changes a graph, after those inside of it; `types` and `weights` are from outside."""
        types, weights = {**types, **_types(graph)}, {**weights, **_weights(graph)}
        if self.inner:
            for node in graph.node:
                for inside in graphs_of(node):
                    self.visit(inside, types, weights)
        part = _cut(self.model, graph, types, weights)
        changed = None if part is None else self.change(part)
        if part is not None and changed is not None:
            self._put_back(graph, part, changed)

    def _put_back(
        self, graph: onnx.GraphProto, part: onnx.ModelProto, changed: onnx.ModelProto
    ) -> None:
        names = _new_names(part, changed, self._taken())
        for node in changed.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        held = [copied(node) for node in graph.node if _holds_graphs(node)]
        set_all(graph.node, [*map(copied, changed.graph.node), *held])
        known = {name for inner in nested_graphs(self.model.graph) for name in _weights(inner)}
        for weight in changed.graph.initializer:
            name = names.get(weight.name, weight.name)
            if name not in known:
                weight.name = name
                # Outermost, where the two branches of an `If` share it.
                self.model.graph.initializer.append(weight)
        present = {entry.domain for entry in self.model.opset_import}
        for entry in changed.opset_import:
            if entry.domain not in present:
                self.model.opset_import.append(entry)

    def _taken(self) -> set[str]:
        taken = set()
        for graph in nested_graphs(self.model.graph):
            taken |= {*_types(graph), *_weights(graph)}
            taken |= {name for node in graph.node for name in node.output}
        return taken


def _new_names(part: onnx.ModelProto, changed: onnx.ModelProto, taken: set[str]) -> dict[str, str]:
    """Other names for what is new in a changed part and called like something elsewhere."""
    old = {name for node in part.graph.node for name in node.output}
    weights = _weights(part.graph)
    made = [name for node in changed.graph.node for name in node.output if name not in old]
    # A weight may still be read elsewhere as it was.
    made += [w.name for w in changed.graph.initializer if w != weights.get(w.name)]
    names = {}
    for name in filter(taken.__contains__, made):
        number = next(i for i in itertools.count(1) if f"{name}_{i}" not in taken)
        names[name] = f"{name}_{number}"
        taken.add(names[name])
    return names


def _cut(
    model: onnx.ModelProto,
    graph: onnx.GraphProto,
    types: Mapping[str, onnx.ValueInfoProto],
    weights: Mapping[str, onnx.TensorProto],
) -> onnx.ModelProto | None:
    """A graph without its control flow; None if there is nothing left, or a type is unknown."""
    plain = [copied(node) for node in graph.node if not _holds_graphs(node)]
    made = {name for node in plain for name in node.output if name}
    read = dict.fromkeys(name for node in plain for name in node.input if name)
    own_weights = {
        name: copied(weights[name]) for name in read if name in weights and name not in made
    }
    given = [value.name for value in graph.input]
    missing = [name for name in read if name not in made and name not in own_weights]
    inputs = list(dict.fromkeys([*(n for n in given if n in missing), *missing]))
    wanted = dict.fromkeys(
        name for node in graph.node if _holds_graphs(node) for name in reads(node)
    )
    wanted |= dict.fromkeys(value.name for value in graph.output)
    outputs = [name for name in wanted if name in made]
    if not plain or not outputs or not {*inputs, *outputs} <= set(types):
        return None
    _copy_shared_weights(plain, own_weights)
    part = onnx.helper.make_graph(
        plain,
        "part",
        [types[name] for name in inputs],
        [types[name] for name in outputs],
        list(own_weights.values()),
        value_info=[types[name] for name in sorted(made - set(outputs)) if name in types],
    )
    alone = onnx.helper.make_model(part, opset_imports=list(model.opset_import))
    alone.ir_version = model.ir_version
    return alone


def _copy_shared_weights(nodes: list[onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> None:
    """Gives each op a weight of its own: the tools store one in one way only, that of the first op.

    Those that are equal afterwards are merged again.
    """
    owners: dict[tuple[str, str], str] = {}
    used: set[str] = set()
    for number, node in enumerate(nodes):
        alone = _CHANGED_IN_PLACE.get(node.op_type, ())
        for place, name in enumerate(node.input):
            if name not in weights or weights[name].data_type != onnx.TensorProto.FLOAT:
                continue
            own = owners.get((name, node.op_type), name)
            if own in used and (place in alone or (name, node.op_type) not in owners):
                copy = copied(weights[name])
                copy.name = own = f"{name}#{number}"
                weights[own] = copy
            owners[name, node.op_type] = node.input[place] = own
            used.add(own)


def _name_nodes(model: onnx.ModelProto) -> None:
    """The tools know nodes by their names."""
    seen: set[str] = set()
    for graph in nested_graphs(model.graph):
        for number, node in enumerate(graph.node):
            if not node.name or node.name in seen:
                node.name = f"{node.name or node.op_type}_{graph.name}_{number}"
            seen.add(node.name)


def _holds_graphs(node: onnx.NodeProto) -> bool:
    return any(True for _ in graphs_of(node))


def _types(graph: onnx.GraphProto) -> dict[str, onnx.ValueInfoProto]:
    values = (*graph.value_info, *graph.output, *graph.input)
    return {value.name: value for value in values if value.type.WhichOneof("value")}


def _weights(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    return {weight.name: weight for weight in graph.initializer}
