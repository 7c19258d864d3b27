"""Names in the ONNX graph: the contract's outside, inside those that lead back to the Keras layer.

tf2onnx numbers its names by a counter that runs on from export to export, puts before them the
names of functions, and behind them where they were inlined. Here every node is named by the path of
the layer that it comes from and its op, `model/encoder/GRU`, its tensors after it, and a weight by
the first node that reads it; numbered where that is not unique. So the same model always gives the
same names.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import onnx

from keras_blocks.export.onnx_io.graphs import graphs_of, nested_graphs

# What tf2onnx and TensorFlow add to a name: counters, the number of the output, the function of a
# loop.
_ADDED = re.compile(
    r"(__\d+)+|:\d+$|\w+_while(?:_\d+)?_(?:cond|body)(?:_frozen)?_\d+_|^(?:cond|body)___"
)
# How a weight is called that no layer has.
_CONSTANT = "constant"


def plain_name(name: str) -> str:
    """A name without the counters in it."""
    return _ADDED.sub("", name)


def path_in(root: str, name: str) -> str:
    """The path below the scope of the model that a name says, if any.

    Functions that a node was inlined from stand before it, and behind it where to.
    """
    plain = plain_name(name)
    # Calls of one model are numbered.
    found = re.search(rf"(?:^|[_/]){re.escape(root)}(?:_\d+)?/", plain)
    if found is None:
        return ""
    return f"{root}/{plain[found.end() :].partition('_tfg_inlined_')[0]}"


def content(weight: onnx.TensorProto) -> bytes:
    """All of a weight but its name."""
    nameless = onnx.TensorProto()
    nameless.CopyFrom(weight)
    nameless.name = ""
    return nameless.SerializeToString(deterministic=True)


def rename(graph: onnx.GraphProto, fixed: Mapping[str, str], root: str) -> None:
    """Names every node and tensor, those in `fixed` as it says.

    Args:
        graph: the graph of a model.
        fixed: the present names of some tensors, and what they are to be called.
        root: str, the scope of the model, which those of its layers begin with.
    """
    names = _Names(fixed)
    scopes = _Scopes(graph, root)
    weights = {weight.name for inner in nested_graphs(graph) for weight in inner.initializer}
    node_names: set[str] = set()
    for inner in nested_graphs(graph):
        for value in inner.input:
            names.give(value.name, _last(value.name))
        for node in inner.node:
            scope = scopes.of(node)
            node.name = _unique(_joined(scope, node.op_type), node_names)
            for name in node.output:
                names.give(name, node.name)
            for name in node.input:
                if name in weights:
                    path = path_in(root, name)
                    names.give(name, path or _joined(scope, _CONSTANT))
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    attribute.g.name = f"{node.name}/{attribute.name}"
    for inner in nested_graphs(graph):
        _apply(inner, names.new)


class _Names:
    """The new names, each once."""

    def __init__(self, fixed: Mapping[str, str]):
        self.new = dict(fixed)
        self._taken = set(fixed.values())

    def give(self, name: str, wanted: str) -> None:
        """Gives a tensor its name, unless it has one."""
        if name and name not in self.new:
            self.new[name] = _unique(wanted or "tensor", self._taken)


class _Scopes:
    """The scope of each node: the path of its layer, and what TensorFlow calls the part.

    What tf2onnx puts beside a node has none, and gets that of the node that it was made for: what
    reads it, else what it reads, else what the graph around it is in.
    """

    def __init__(self, graph: onnx.GraphProto, root: str):
        self._root = root
        self._scopes: dict[str, str] = {}
        self._fill(graph, root)

    def of(self, node: onnx.NodeProto) -> str:
        """The scope of a node, which still has the outputs that it had."""
        return self._scopes[_key(node)]

    def _fill(self, graph: onnx.GraphProto, around: str) -> None:
        # Of two states of a loop that are the same tensor, either may be the first.
        own = {
            _key(node): "" if node.op_type == "Identity" else _scope(path_in(self._root, node.name))
            for node in graph.node
        }
        of_readers: dict[str, str] = {}
        for node in reversed(graph.node):
            if node.op_type == "Identity":
                continue
            found = (of_readers.get(name, "") for name in node.output)
            own[_key(node)] = scope = own[_key(node)] or next(filter(None, found), "")
            of_readers.update(dict.fromkeys(node.input, scope))
        of_sources: dict[str, str] = {}
        for node in graph.node:
            found = (of_sources.get(name, "") for name in node.input)
            scope = own[_key(node)] or next(filter(None, found), "") or around
            self._scopes[_key(node)] = scope
            of_sources.update(dict.fromkeys(node.output, scope))
            for inner in graphs_of(node):
                self._fill(inner, scope)


def _key(node: onnx.NodeProto) -> str:
    """Every node gives some tensor, and no two the same."""
    return next(name for name in node.output if name)


def _last(name: str) -> str:
    """The last part of a name."""
    return plain_name(name).partition("_tfg_inlined_")[0].rpartition("/")[2]


def _scope(path: str) -> str:
    return path.rpartition("/")[0]


def _joined(scope: str, name: str) -> str:
    return f"{scope}/{name}" if scope else name


def _unique(wanted: str, taken: set[str]) -> str:
    candidates = itertools.chain([wanted], (f"{wanted}_{i}" for i in itertools.count(1)))
    name = next(candidate for candidate in candidates if candidate not in taken)
    taken.add(name)
    return name


def _apply(graph: onnx.GraphProto, new: Mapping[str, str]) -> None:
    # tf2onnx repeats its own names in it.
    graph.doc_string = ""
    for node in graph.node:
        node.doc_string = ""
        # Said or left out it is the same operator, but not the same bytes.
        node.domain = node.domain
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
