"""Traces a model in inference, with native stand-ins and every weight a constant."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import convert_to_constants

from keras_blocks.errors import ExportError
from keras_blocks.export.conversion.retracing import Retracing
from keras_blocks.export.lowerings import lowered_call
from keras_blocks.export.onnx_io.external_data import Apart
from keras_blocks.export.passes.opset.newest import NEWEST_OPSET
from keras_blocks.export.signature.signature import Signature, trace
from keras_blocks.export.tracing.call_overrides import overridden_calls
from keras_blocks.export.tracing.file_dtypes import computes_in, in_file_dtype, widen
from keras_blocks.export.tracing.minimum_sizes import are_asked_for, note
from keras_blocks.export.tracing.name_scopes import scoped
from keras_blocks.export.tracing.stand_ins import OnnxNode, stand_ins
from keras_blocks.windows.short_inputs import known_to_fit

_LARGEST_WHOLE = 1_800_000_000  # bytes of weights; the rest of a message has its share too
_SMALLEST_APART = 2**20  # bytes; passes over the graph may want to read the small ones
_NO_FLOAT8 = (
    "which onnxruntime has no kernels for on CPU. Export the model as it was before "
    "`quantize('float8')`; `keras_blocks.export.quantize` makes int8 of the file."
)
_REFUSED_TYPES = {
    tf.bfloat16.as_datatype_enum: "which onnxruntime has no kernels for on CPU. "
    "Build the model with float32 or mixed_float16.",
    types_pb2.DT_FLOAT8_E4M3FN: _NO_FLOAT8,
    types_pb2.DT_FLOAT8_E5M2: _NO_FLOAT8,
    tf.string.as_datatype_enum: "but exported models take and give numbers only. "
    "A lookup table of strings has no ONNX form here: look them up before the model.",
}


@dataclass(frozen=True)
class Captured:
    """A frozen graph: the names of its input and output tensors, and what its stand-ins become.

    `apart` has the inputs that are weights, and their values; `tables` the handles of lookup
    tables, and of any other resources, by the names of the nodes that stand for them.
    """

    graph_def: Any
    inputs: list[str]
    outputs: list[str]
    nodes: dict[str, OnnxNode]
    apart: Apart
    tables: Mapping[str, tf.Tensor]


def weights_apart(model: keras.Model) -> list[keras.Variable]:
    """The large weights of a model that is too large for one message; of any other none."""
    sizes = [math.prod(weight.shape) * tf.as_dtype(weight.dtype).size for weight in model.variables]
    if sum(sizes) <= _LARGEST_WHOLE:
        return []
    both = zip(model.variables, sizes, strict=True)
    return [
        weight
        for weight, size in both
        if size >= _SMALLEST_APART and tf.as_dtype(weight.dtype).is_floating
    ]


def capture(
    model: keras.Model,
    signature: Signature,
    opset: int = NEWEST_OPSET,
    apart: Sequence[keras.Variable] = (),
) -> Captured:
    """The frozen graph of a model's inference, with stand-ins where a native ONNX op serves.

    Args:
        model: the model.
        signature: its signature.
        opset: int, the version of the ONNX operators.
        apart: weights that are to be inputs of the graph.

    Raises:
        ExportError: the model cannot be traced, or holds what no ONNX file can.
    """
    specs = signature.specs()
    given = len(specs)
    specs += [tf.TensorSpec(weight.shape, weight.dtype) for weight in apart]

    def run(*flat: tf.Tensor) -> list[tf.Tensor]:
        for placeholder, tensor in zip(flat, signature.contract.flat_inputs(), strict=False):
            note(placeholder, tensor.least)
        # Layers that count their draws or keep a state would write to a weight, which is to be a
        # constant; what they write here ends with the scope.
        with keras.StatelessScope(list(zip(apart, flat[given:], strict=True))):
            outputs = signature.apply(model, flat[:given])
        # Identities give every output a tensor of its own, even one that is also an input.
        return [tf.identity(part) for part in signature.unpack(outputs)]

    lowered = overridden_calls(model, scoped(model, lowered_call))
    with stand_ins(opset) as nodes, known_to_fit(are_asked_for), lowered:
        concrete = trace(run, specs)
    inputs = [tensor.name for tensor in concrete.inputs[: len(specs)]]
    outputs = [tensor.name for tensor in concrete.outputs]
    values = (in_file_dtype(tf.convert_to_tensor(weight)).numpy() for weight in apart)
    large = dict(zip(inputs[given:], values, strict=True))
    graph_def = freeze(concrete)
    if computes_in(model, "bfloat16"):
        widen(graph_def)
    _refuse_element_types(graph_def)
    captured = Captured(graph_def, inputs[:given], outputs, nodes, large, _tables(concrete))
    return _rewrite(captured, opset)


def _rewrite(captured: Captured, opset: int) -> Captured:
    """The graph with rewrites in place of operations that have no ONNX form; itself if it has
    none of them."""
    names = [*captured.inputs, *captured.apart]
    graph = Retracing(captured.graph_def, names, captured.outputs, captured.tables)
    if not graph.needed:
        return captured
    with stand_ins(opset) as nodes:
        concrete = trace(graph.run, graph.specs)
    inputs = [tensor.name for tensor in concrete.inputs[: len(names)]]
    given = len(captured.inputs)
    return Captured(
        freeze(concrete),
        inputs[:given],
        [tensor.name for tensor in concrete.outputs],
        captured.nodes | nodes,
        dict(zip(inputs[given:], captured.apart.values(), strict=True)),
        _tables(concrete),
    )


def freeze(concrete: Any) -> Any:
    """The graph of a concrete function, with every weight a constant."""
    try:
        with _silent_about_tables(), _cases_as_they_are():
            frozen = convert_to_constants.convert_variables_to_constants_v2(
                concrete, lower_control_flow=False, aggressive_inlining=True
            )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the model's graph cannot be made one of constants: {reason}") from error
    graph_def = frozen.graph.as_graph_def(add_shapes=True)
    _freeze_captured(graph_def, concrete)
    _allow_inlining(graph_def)
    return graph_def


@contextmanager
def _cases_as_they_are() -> Iterator[None]:
    """Keeps TensorFlow from lowering `Case`: of loops and branches it is told to lower none."""
    before = convert_to_constants._CONTROL_FLOW_OPS
    convert_to_constants._CONTROL_FLOW_OPS = before | {"Case", "StatelessCase"}
    try:
        yield
    finally:
        convert_to_constants._CONTROL_FLOW_OPS = before


@contextmanager
def _silent_about_tables() -> Iterator[None]:
    """TensorFlow warns that it does not store the initializers of tables, which nobody asks for."""

    def of_other_things(record: logging.LogRecord) -> bool:
        return "table_initializer" not in record.getMessage()

    logger = tf.get_logger()
    logger.addFilter(of_other_things)
    try:
        yield
    finally:
        logger.removeFilter(of_other_things)


def _tables(concrete: Any) -> dict[str, tf.Tensor]:
    """The handles of resources that are no weights, by the names of their nodes."""
    variables = {id(variable.handle) for variable in concrete.graph.variables}
    return {
        inner.op.name: outer
        for outer, inner in concrete.graph.captures
        if outer.dtype == tf.resource and id(outer) not in variables
    }


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
