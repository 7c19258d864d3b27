"""Leaves in the body of a loop only what changes from round to round.

TensorFlow hands every tensor that a loop's body reads into the loop, and tf2onnx makes a state of
each, which goes round unchanged: onnxruntime then sees no constant weights in the body, and
prepares none of them. And what the body computes from such tensors alone is the same each round.
"""

from __future__ import annotations

import onnx
import onnx.helper

from keras_blocks.export.onnx_io.graphs import (
    copied,
    graphs_of,
    nested_graphs,
    read_instead,
    reads,
    set_all,
)

_SEQUENCE_OPS = ("SequenceConstruct", "SequenceInsert")
# What stands before the states in the inputs of the node and of its body, and in its outputs.
_NODE_INPUTS, _BODY_INPUTS, _BODY_OUTPUTS = 2, 2, 1


def simplify_loops(graph: onnx.GraphProto) -> None:
    """Takes unchanged states, weights and constant computations out of every loop.

    The nodes of a graph must stand behind those that they read.
    """
    for outer in reversed(list(nested_graphs(graph))):
        nodes = []
        for node in [copied(node) for node in outer.node]:
            if node.op_type == "Loop":
                _say_scalars(node)
                nodes += _read_from_outside(outer, node)
                nodes += _hoist(outer, node)
            nodes.append(node)
        set_all(outer.node, nodes)
    _type_sequences(graph)


def _say_scalars(node: onnx.NodeProto) -> None:
    """Says of the round and the condition that they are scalars.

    tf2onnx forgets it where a branch stands in the body, and onnxruntime refuses the loop then.
    """
    (body,) = graphs_of(node)
    for value in body.input[:_BODY_INPUTS]:
        value.type.tensor_type.shape.SetInParent()


def _read_from_outside(outer: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """States that the body gives back as it got them become tensors that it reads from outside.

    Gives the nodes that stand for the loop's outputs of them.
    """
    (body,) = graphs_of(node)
    behind = {part.output[0]: part.input[0] for part in body.node if part.op_type == "Identity"}
    identities, outside = [], {}
    for state in reversed(range(len(node.input) - _NODE_INPUTS)):
        name = body.input[_BODY_INPUTS + state].name
        given = body.output[_BODY_OUTPUTS + state].name
        while given in behind:
            given = behind[given]
        if given != name:
            continue
        outside[name] = source = node.input[_NODE_INPUTS + state]
        result = node.output[state]
        if result:
            identities.append(onnx.helper.make_node("Identity", [source], [result], result))
        del node.input[_NODE_INPUTS + state], node.output[state]
        del body.input[_BODY_INPUTS + state], body.output[_BODY_OUTPUTS + state]
    for part in body.node:
        read_instead(part, outside)
    return identities


def _hoist(outer: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Moves the weights out of the body, and gives what else reads nothing of it."""
    (body,) = graphs_of(node)
    outer.initializer.extend(body.initializer)
    del body.initializer[:]
    changing = {value.name for value in body.input}
    results = {value.name for value in body.output}
    moved, kept = [], []
    for part in [copied(part) for part in body.node]:
        stays = part.op_type.startswith("Random") or results.intersection(part.output)
        if stays or changing.intersection(reads(part)):
            changing.update(part.output)
            kept.append(part)
        else:
            moved.append(part)
    set_all(body.node, kept)
    return moved


def _type_sequences(graph: onnx.GraphProto) -> None:
    """Says of the sequences that go round in loops that they are sequences."""
    sequences = {
        node.output[0]
        for inner in nested_graphs(graph)
        for node in inner.node
        if node.op_type in _SEQUENCE_OPS
    }
    for inner in nested_graphs(graph):
        for node in inner.node:
            for body in graphs_of(node) if node.op_type == "Loop" else ():
                for state, source in enumerate(node.input[_NODE_INPUTS:]):
                    if source in sequences:
                        _make_sequence(body.input[_BODY_INPUTS + state])
                        _make_sequence(body.output[_BODY_OUTPUTS + state])


def _make_sequence(value: onnx.ValueInfoProto) -> None:
    element = copied(value.type)
    value.type.sequence_type.elem_type.CopyFrom(element)
