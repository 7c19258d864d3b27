"""The lowest opset that a graph needs, and graphs brought down to one.

Many a release of ONNX gave an operator a new version for nothing but further element types. A node
needs the new one only where the one before lacks its inputs, attributes or types. So a graph that
was made for the newest opset says of itself how low it may go, and every runtime from there on
loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference

from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, reads, set_all
from keras_blocks.export.passes.opset.newest import (
    LOWEST_DEFAULT_OPSET,
    opset_of,
    schema_of,
    set_opset,
    taken,
)

_SMALL = 1024  # bytes; shapes and axes are smaller, and types hang on no larger constant
_CONTAINERS = {"sequence_type": "seq", "optional_type": "optional"}
# What a tensor of unknown type may be: exports hold no other types.
_ORDINARY = frozenset(
    f"tensor({name})"
    for name in (
        "bool", "double", "float", "float16", "int16", "int32", "int64", "int8", "uint16", "uint32",
        "uint64", "uint8",
    )
)  # fmt: skip


def lower(model: onnx.ModelProto, opset: int | None) -> None:
    """Makes a model one of an earlier opset, with the IR version that goes with it.

    Args:
        model: a model without nodes that nothing reads.
        opset: int, or None for the lowest that has all that the model holds, 17 at least.
    Raises:
        ExportError: the opset lacks an operator of the model.
    """
    steps = _Steps(model)
    if opset is None:
        nodes = (node for graph in nested_graphs(model.graph) for node in graph.node)
        opset = max((steps.down(node)[0] for node in nodes), default=LOWEST_DEFAULT_OPSET)
    if opset == steps.present:
        return
    # What is inside a node first: the node is copied with it.
    for graph in reversed(list(nested_graphs(model.graph))):
        set_all(graph.node, [_lowered(node, steps, opset) for node in graph.node])
    _remove_unread(model.graph)
    set_opset(model, opset)


def _remove_unread(graph: onnx.GraphProto) -> None:
    """Constants that have become attributes; the large weights stay where they are."""
    read = {name for node in graph.node for name in reads(node)}
    read |= {value.name for value in graph.output}
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in read:
            del graph.initializer[place]


def _lowered(node: onnx.NodeProto, steps: _Steps, opset: int) -> onnx.NodeProto:
    reached, lowered = steps.down(node, opset)
    if reached > opset:
        raise ExportError(
            f"node '{node.name}' is a {node.op_type} as ONNX has it since opset {reached}. Choose "
            f"opset_version={reached} or more (--opset)."
        )
    return copied(lowered)


class _Steps:
    """How far the nodes of a model may go down, from version to version of their operators."""

    def __init__(self, model: onnx.ModelProto):
        self.present = opset_of(model)
        self._tensors = _Tensors(model)

    def down(
        self, node: onnx.NodeProto, floor: int = LOWEST_DEFAULT_OPSET
    ) -> tuple[int, onnx.NodeProto]:
        """The lowest opset from `floor` on that has a node, and the node as it is called there."""
        call = None if node.domain else _call_of(node.op_type, self.present)
        while call is not None and call.since > floor:
            older = _call_of(node.op_type, call.since - 1)
            if older is None:
                return call.since, node
            rewrite = _REWRITES.get((node.op_type, call.since))
            called = node if rewrite is None else rewrite(copied(node), self._tensors)
            if called is None or not self._takes(older, call, called):
                return call.since, node
            call, node = older, called
        return floor, node

    def _takes(self, older: _Call, newer: _Call, node: onnx.NodeProto) -> bool:
        """Whether a version of an operator computes for a node what the one after it does."""
        given = {attribute.name for attribute in node.attribute}
        left_out = older.defaults.keys() & newer.defaults.keys() - given
        return (
            given <= older.defaults.keys()
            and not older.required - given
            and all(older.defaults[name] == newer.defaults[name] for name in left_out)
            and self._pass(node.input, older.inputs, newer.inputs)
            and self._pass(node.output, older.outputs, newer.outputs)
        )

    def _pass(
        self, names: Sequence[str], older: Sequence[_Formal], newer: Sequence[_Formal]
    ) -> bool:
        for place, name in enumerate(names):
            before, after = _at(older, place), _at(newer, place)
            if before is None or after is None or before.name != after.name:
                return False
            types = self._tensors.types(name) if name else frozenset()
            if not (_ORDINARY & after.types if types is None else types) <= before.types:
                return False
        return True


@dataclass(frozen=True)
class _Formal:
    """An input or output of an operator; `repeated` stands for all that come after it too."""

    name: str
    types: frozenset[str]
    repeated: bool


@dataclass(frozen=True)
class _Call:
    """How a version of an operator is called."""

    since: int
    inputs: tuple[_Formal, ...]
    outputs: tuple[_Formal, ...]
    defaults: Mapping[str, bytes]
    required: frozenset[str]


@cache
def _call_of(op_type: str, opset: int) -> _Call | None:
    schema = schema_of(op_type, opset)
    if schema is None or schema.deprecated:
        return None
    repeated = onnx.defs.OpSchema.FormalParameterOption.Variadic
    inputs, outputs = (
        tuple(_Formal(f.name, frozenset(f.types), f.option == repeated) for f in formals)
        for formals in (schema.inputs, schema.outputs)
    )
    defaults = {n: a.default_value.SerializeToString() for n, a in schema.attributes.items()}
    required = frozenset(name for name, a in schema.attributes.items() if a.required)
    return _Call(schema.since_version, inputs, outputs, defaults, required)


def _at(formals: Sequence[_Formal], place: int) -> _Formal | None:
    if place < len(formals):
        return formals[place]
    return formals[-1] if formals and formals[-1].repeated else None


class _Tensors:
    """What is known of the tensors of a model without running it, by their names."""

    def __init__(self, model: onnx.ModelProto):
        inferred = onnx.shape_inference.infer_shapes(_without_large_weights(model))
        # A name may stand in several graphs.
        self._kinds: dict[str, list[onnx.TypeProto]] = {}
        self._constants: dict[str, onnx.TensorProto] = {}
        for graph in nested_graphs(inferred.graph):
            self._constants |= {weight.name: weight for weight in graph.initializer}
            for value in (*graph.input, *graph.output, *graph.value_info):
                self._kinds.setdefault(value.name, []).append(value.type)

    def types(self, name: str) -> frozenset[str] | None:
        """Its types as the definitions of the operators write them; None where one is unknown."""
        if name in self._constants:
            return frozenset([_tensor_of(self._constants[name].data_type)])
        found = [_type_text(kind) for kind in self._kinds.get(name, [])]
        known = frozenset(text for text in found if text is not None)
        return known if found and None not in found else None

    def size(self, name: str, axis: int) -> int | None:
        """Its size along an axis, if that is known."""
        sizes = set()
        for kind in self._kinds.get(name, []):
            dims = kind.tensor_type.shape.dim
            fixed = -len(dims) <= axis < len(dims) and dims[axis].HasField("dim_value")
            sizes.add(dims[axis].dim_value if fixed else None)
        return sizes.pop() if len(sizes) == 1 else None

    def constant(self, node: onnx.NodeProto, place: int) -> np.ndarray | None:
        """The input of a node at a place, if it is a constant; empty where it is left out."""
        if len(node.input) <= place or not node.input[place]:
            return np.zeros(0, "int64")
        found = self._constants.get(node.input[place])
        return None if found is None else onnx.numpy_helper.to_array(found)


def _without_large_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model whose large weights are inputs: inference reads a copy of the whole."""
    graph = model.graph
    small = [weight for weight in graph.initializer if 0 < weight.ByteSize() <= _SMALL]
    kept = {weight.name for weight in small}
    large = [
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        for weight in graph.initializer
        if weight.name not in kept
    ]
    light = onnx.helper.make_graph(
        graph.node,
        "light",
        [*graph.input, *large],
        graph.output,
        small,
        value_info=graph.value_info,
    )
    return onnx.helper.make_model(
        light, opset_imports=list(model.opset_import), ir_version=model.ir_version
    )


def _type_text(kind: onnx.TypeProto) -> str | None:
    """A type as the definitions of the operators write it."""
    which = kind.WhichOneof("value")
    if which == "tensor_type":
        return _tensor_of(kind.tensor_type.elem_type) if kind.tensor_type.elem_type else None
    if which not in _CONTAINERS:
        return None
    inner = _type_text(getattr(kind, which).elem_type)
    return None if inner is None else f"{_CONTAINERS[which]}({inner})"


def _tensor_of(element_type: int) -> str:
    return f"tensor({onnx.TensorProto.DataType.Name(element_type).lower()})"


def _reduction(node: onnx.NodeProto, tensors: _Tensors) -> onnx.NodeProto | None:
    """The axes were an attribute; none at all meant all of them."""
    spared = bool(taken(node, "noop_with_empty_axes", 0))
    axes = tensors.constant(node, 1)
    if axes is None or (axes.size == 0 and spared):
        return None
    del node.input[1:]
    if axes.size:
        node.attribute.append(onnx.helper.make_attribute("axes", axes.ravel().tolist()))
    return node


def _dft(node: onnx.NodeProto, tensors: _Tensors) -> onnx.NodeProto | None:
    """The axis was an attribute, and one from the front."""
    axis = tensors.constant(node, 2)
    if axis is None or axis.size != 1 or axis.item() < 0:
        return None
    del node.input[2:]
    node.attribute.append(onnx.helper.make_attribute("axis", axis.item()))
    return node


def _grid_sample(node: onnx.NodeProto, tensors: _Tensors) -> onnx.NodeProto:
    """Two modes had other names."""
    mode = taken(node, "mode", b"linear")
    names = {b"linear": b"bilinear", b"cubic": b"bicubic"}
    node.attribute.append(onnx.helper.make_attribute("mode", names.get(mode, mode)))
    return node


def _split(node: onnx.NodeProto, tensors: _Tensors) -> onnx.NodeProto | None:
    """The outputs said into how many equal parts; TensorFlow knows no other ones."""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    size = tensors.size(node.input[0], axis)
    if taken(node, "num_outputs", 0) and size is not None and size % len(node.output):
        return None
    return node


_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip
_REWRITES: dict[tuple[str, int], Callable[[onnx.NodeProto, _Tensors], onnx.NodeProto | None]] = {
    ("DFT", 20): _dft,
    ("GridSample", 20): _grid_sample,
    ("Split", 18): _split,
    **{(name, 18): _reduction for name in _REDUCTIONS},
}
"""By operator and the opset that calls it in another way: how a node is called before it; None
where it cannot be."""
