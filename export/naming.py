"""Names in the ONNX graph: the contract's outside, inside those that lead back to the Keras layer.

tf2onnx numbers its names by a counter that runs on from export to export. Here every node is named
by the layer that it comes from and its op, `model/encoder/GRU`, and its tensors after it, numbered
where that is not unique; so the same model always gives the same names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import onnx

from keras_blocks.export.graphs import nested_graphs

# What tf2onnx and TensorFlow add to a name: counters, the number of the output, the function of a
# loop.
_ADDED = re.compile(
    r"(__\d+)+|:\d+$|\w+_while(?:_\d+)?_(?:cond|body)(?:_frozen)?_\d+_|^(?:cond|body)___"
)


def plain_name(name: str) -> str:
    """A name without the counters in it."""
    return _ADDED.sub("", name)


def content(weight: onnx.TensorProto) -> bytes:
    """All of a weight but its name."""
    nameless = onnx.TensorProto()
    nameless.CopyFrom(weight)
    nameless.name = ""
    return nameless.SerializeToString(deterministic=True)


def rename(graph: onnx.GraphProto, fixed: Mapping[str, str]) -> None:
    """Names every node and tensor, those in `fixed` as it says."""
    taken = set(fixed.values())
    new = dict(fixed)
    for inner in nested_graphs(graph):
        for value in (*sorted(inner.initializer, key=_weight_order), *inner.input):
            _assign(new, taken, value.name, plain_name(value.name))
    node_names: set[str] = set()
    for inner in nested_graphs(graph):
        for node in inner.node:
            node.name = _unique(_node_name(node), node_names)
            for name in node.output:
                _assign(new, taken, name, node.name)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    attribute.g.name = f"{node.name}/{attribute.name}"
    for inner in nested_graphs(graph):
        _apply(inner, new)


def _weight_order(weight: onnx.TensorProto) -> tuple[str, bytes]:
    """Weights of one plain name are numbered by what they hold."""
    return plain_name(weight.name), content(weight)


def _node_name(node: onnx.NodeProto) -> str:
    """The scope, which is the path of the layer, and the op."""
    scope = plain_name(node.name).rpartition("/")[0]
    return f"{scope}/{node.op_type}" if scope else node.op_type


def _assign(new: dict[str, str], taken: set[str], name: str, wanted: str) -> None:
    if name and name not in new:
        new[name] = _unique(wanted or "tensor", taken)


def _unique(wanted: str, taken: set[str]) -> str:
    candidates = itertools.chain([wanted], (f"{wanted}_{i}" for i in itertools.count(1)))
    name = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(name)
    return name


def _apply(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new.get(value.name, value.name)
    # The shapes of inner tensors are inferred again by whoever wants them; their free dims have
    # numbered names, which say nothing.
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.Clear()
