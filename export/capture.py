"""Traces a model in inference, with native stand-ins and every weight a constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_blocks.errors import ExportError
from keras_blocks.export.hooks import replaced_calls
from keras_blocks.export.lowerings import lowered_call
from keras_blocks.export.signature import Signature, trace
from keras_blocks.export.standins import OnnxNode, stand_ins

_REFUSED_TYPES = {
    tf.bfloat16.as_datatype_enum: "which onnxruntime has no kernels for on CPU. "
    "Build the model with float32 or mixed_float16.",
    tf.string.as_datatype_enum: "but exported models take and give numbers only. "
    "Look strings up before the model.",
}


@dataclass(frozen=True)
class Captured:
    """A frozen graph: the names of its input and output tensors, and what its stand-ins become."""

    graph_def: Any
    inputs: list[str]
    outputs: list[str]
    nodes: Mapping[str, OnnxNode]


def capture(model: keras.Model, signature: Signature) -> Captured:
    """The frozen graph of a model's inference, with stand-ins where a native ONNX op serves.

    Raises:
        ExportError: the model cannot be traced, or holds what no ONNX file can.
    """
    specs = signature.specs()

    def run(*flat: tf.Tensor) -> list[tf.Tensor]:
        # Layers that count their draws or keep a state would write to a weight, which is to be a
        # constant; what they write here ends with the scope.
        with keras.StatelessScope():
            outputs = model(*signature.arguments(flat), training=False)
        # Identities give every output a tensor of its own, even one that is also an input.
        return [tf.identity(part) for part in signature.unpack(outputs)]

    with stand_ins() as nodes, replaced_calls(model, lowered_call):
        concrete = trace(run, specs)
    inputs = [tensor.name for tensor in concrete.inputs[: len(specs)]]
    outputs = [tensor.name for tensor in concrete.outputs]
    return Captured(_freeze(concrete, len(specs)), inputs, outputs, nodes)


def _freeze(concrete: Any, arguments: int) -> Any:
    _refuse_resources(concrete)
    try:
        frozen = convert_variables_to_constants_v2(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the model's weights cannot be made constants: {reason}") from error
    graph_def = frozen.graph.as_graph_def(add_shapes=True)
    _freeze_captured(graph_def, concrete)
    _allow_inlining(graph_def)
    _refuse_element_types(graph_def)
    return graph_def


def _refuse_resources(concrete: Any) -> None:
    variables = {id(variable.handle) for variable in concrete.graph.variables}
    for outer, _ in concrete.graph.captures:
        if outer.dtype == tf.resource and id(outer) not in variables:
            raise ExportError(
                "the model uses a resource that is not a weight (a lookup table or the like), "
                "which has no ONNX form. Look strings and keys up before the model."
            )


def _refuse_element_types(graph_def: Any) -> None:
    nodes = _all_nodes(graph_def)
    # The words of an assertion are dropped with it.
    words = {name.split(":")[0] for node in nodes if node.op == "Assert" for name in node.input}
    for node in nodes:
        if node.name in words:
            continue
        for attribute in node.attr.values():
            if attribute.type in _REFUSED_TYPES:
                raise ExportError(
                    f"node '{node.name}' computes in {tf.as_dtype(attribute.type).name}, "
                    f"{_REFUSED_TYPES[attribute.type]}"
                )


def _all_nodes(graph_def: Any) -> list[Any]:
    functions = graph_def.library.function
    return [*graph_def.node, *(node for function in functions for node in function.node_def)]


def _freeze_captured(graph_def: Any, concrete: Any) -> None:
    """Eager tensors that the model's code closes over are placeholders until here."""
    values = {
        inner.op.name: outer
        for outer, inner in concrete.graph.captures
        if outer.dtype != tf.resource
    }
    for node in graph_def.node:
        if node.op == "Placeholder" and node.name in values:
            constant = tf.make_tensor_proto(values[node.name].numpy())
            node.op = "Const"
            del node.attr["shape"]
            node.attr["value"].tensor.CopyFrom(constant)


def _allow_inlining(graph_def: Any) -> None:
    """A function that was to be compiled is not inlined, and tf2onnx knows no calls."""
    for owner in [*_all_nodes(graph_def), *graph_def.library.function]:
        for attribute in ("_XlaMustCompile", "_noinline", "api_implements"):
            if attribute in owner.attr:
                del owner.attr[attribute]
