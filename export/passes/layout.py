"""Keeps tensors channels first between neighbours, where ONNX wants them so.

Keras has the channels last; each convolution and pooling is transposed there and back, and tf2onnx
cancels what meets, but for two places. The branch that pools or convolves when an axis is long
enough keeps its transposes inside; here they come out of it. And a mean or maximum over the images
that a transpose gives back can be taken before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import onnx.helper
import onnx.numpy_helper

from keras_blocks.export.onnx_io.graphs import copied, nested_graphs, set_all
from keras_blocks.export.passes.transposes import move_transposes, order_of

# What a branch gives where nothing fits; an empty tensor, which costs nothing to transpose.
_FILLED = ("Expand", "ConstantOfShape")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")


def settle_layout(graph: onnx.GraphProto) -> None:
    """Takes transposes out of branches, joins those in a row, and reduces before them.

    The nodes of a graph must stand behind those that they read.
    """
    for inner in reversed(list(nested_graphs(graph))):
        _out_of_branches(inner)
    move_transposes(graph)
    for inner in nested_graphs(graph):
        _reduce_before(inner, {weight.name: weight for weight in graph.initializer})


def _out_of_branches(graph: onnx.GraphProto) -> None:
    nodes = []
    for node in [copied(node) for node in graph.node]:
        nodes.append(node)
        if node.op_type == "If":
            nodes += _taken_out(node)
    set_all(graph.node, nodes)


def _taken_out(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The transposes that ended the branches, one behind the node for each of its outputs."""
    branches = {a.name: a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH}
    done, nothing = branches["then_branch"], branches["else_branch"]
    inside, filled = _producers(done), _producers(nothing)
    transposes = []
    for place, name in enumerate(node.output):
        last = inside.get(done.output[place].name)
        other = filled.get(nothing.output[place].name)
        if last is None or not order_of(last) or last.input[0] not in inside:
            continue
        if other is None or other.op_type not in _FILLED:
            continue
        order = order_of(last)
        back = [order.index(axis) for axis in range(len(order))]
        before = f"{name}/before"
        emptied = onnx.helper.make_node(
            "Transpose", [nothing.output[place].name], [f"{before}/else"], last.name, perm=back
        )
        nothing.node.append(emptied)
        _set_output(done.output[place], last.input[0], back)
        _set_output(nothing.output[place], emptied.output[0], back)
        node.output[place] = before
        transposes.append(
            onnx.helper.make_node("Transpose", [before], [name], last.name, perm=order)
        )
    return transposes


def _set_output(value: onnx.ValueInfoProto, name: str, back: Sequence[int]) -> None:
    """The value as it is before a transpose, which `back` undoes."""
    value.name = name
    shape = value.type.tensor_type.shape
    if len(shape.dim) == len(back):
        dims = [copied(shape.dim[axis]) for axis in back]
        set_all(shape.dim, dims)


def _reduce_before(graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto]) -> None:
    producers = _producers(graph)
    for node in graph.node:
        source = producers.get(node.input[0]) if node.input else None
        if node.op_type not in _REDUCTIONS or source is None or not order_of(source):
            continue
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        order, axes = order_of(source), _axes(node, options, weights)
        if axes is None or options.get("keepdims", 1):
            continue
        kept = [axis for place, axis in enumerate(order) if place not in axes]
        if kept == sorted(kept):
            node.input[0] = source.input[0]
            _set_axes(graph, node, sorted(order[place] for place in axes))


def _axes(
    node: onnx.NodeProto, options: Mapping[str, object], weights: Mapping[str, onnx.TensorProto]
) -> list[int] | None:
    """The places that a reduction goes over, or None where that is not known, or all."""
    given = options.get("axes")
    if len(node.input) > 1 and node.input[1] in weights:
        given = onnx.numpy_helper.to_array(weights[node.input[1]]).tolist()
    axes = list(given) if isinstance(given, list | tuple) else []
    return axes if axes and min(axes) >= 0 else None


def _set_axes(graph: onnx.GraphProto, node: onnx.NodeProto, axes: Sequence[int]) -> None:
    if len(node.input) > 1:
        name = f"{node.output[0]}/axes"
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [len(axes)], axes)
        graph.initializer.append(tensor)
        node.input[1] = name
        return
    rest = [copied(attribute) for attribute in node.attribute if attribute.name != "axes"]
    set_all(node.attribute, [*rest, onnx.helper.make_attribute("axes", axes)])


def _producers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in graph.node for name in node.output if name}
