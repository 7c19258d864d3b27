"""The last step: names, dims, opset, metadata; refuses what no runtime could load."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.version_converter

from keras_blocks.contract import METADATA_KEY, Contract, FlatTensor
from keras_blocks.errors import ExportError
from keras_blocks.export.empty_shapes import allow_empty_shapes
from keras_blocks.export.folding import fold_weights
from keras_blocks.export.graphs import nested_graphs
from keras_blocks.export.loops import simplify_loops
from keras_blocks.export.naming import rename
from keras_blocks.export.pruning import prune

# onnxruntime's own domain; its ops are known to it, not to onnx.
RUNTIME_DOMAIN = "com.microsoft"
_PRODUCERS = ("keras", "tensorflow", "tf2onnx", "onnx")


def finish(
    model: onnx.ModelProto,
    contract: Contract,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
    name: str,
) -> onnx.ModelProto:
    """Names, cleans and checks a converted model.

    Args:
        model: the model as tf2onnx left it.
        contract: the names, element types and dims that it is to have.
        inputs: its present input names, in the order of `contract.flat_inputs()`.
        outputs: its present output names, in the order of `contract.flat_outputs()`.
        opset: int, the version of the ONNX operators that it is to have.
        name: str, that of the graph.

    Raises:
        ExportError: the graph holds an op or an element type that no runtime knows.
    """
    model = _at_opset(model, opset)
    graph = model.graph
    _refuse_unknown_ops(model)
    wanted_inputs, wanted_outputs = contract.flat_inputs(), contract.flat_outputs()
    renamed = dict(zip(inputs, (t.name for t in wanted_inputs), strict=True))
    renamed |= dict(zip(outputs, (t.name for t in wanted_outputs), strict=True))
    simplify_loops(graph)
    fold_weights(graph, opset)
    prune(graph)
    allow_empty_shapes(graph)
    rename(graph, renamed)
    graph.name = name
    _set_values(graph.input, wanted_inputs)
    _set_values(graph.output, wanted_outputs)
    _describe(model, contract, opset)
    _check(model)
    return model


def op_counts(model: onnx.ModelProto) -> dict[str, int]:
    """How often each op occurs, loop bodies included, the most frequent first."""
    counts: dict[str, int] = {}
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    present = next(entry.version for entry in model.opset_import if not entry.domain)
    used = {node.domain for graph in nested_graphs(model.graph) for node in graph.node}
    if present != opset:
        try:
            model = onnx.version_converter.convert_version(model, opset)
        except Exception as error:
            raise ExportError(
                f"opset {opset} cannot be reached from opset {present}: {error}. "
                f"Choose opset_version={present} or less."
            ) from error
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", opset))
    model.opset_import.extend(
        onnx.helper.make_opsetid(domain, 1) for domain in sorted(used - {"", "ai.onnx"})
    )
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)
    return model


def _refuse_unknown_ops(model: onnx.ModelProto) -> None:
    opset = {entry.domain: entry.version for entry in model.opset_import}
    unknown: dict[str, str] = {}
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            if node.domain == RUNTIME_DOMAIN:
                continue
            if not onnx.defs.has(node.op_type, opset.get(node.domain, 1), node.domain):
                unknown.setdefault(node.op_type, node.name)
    if unknown:
        ops = ", ".join(f"{op} (node '{name}')" for op, name in sorted(unknown.items()))
        raise ExportError(f"the model uses operations that have no ONNX form here: {ops}")


def _set_values(values: Any, wanted: Sequence[FlatTensor]) -> None:
    present = {value.name: value for value in values}
    infos = []
    for tensor in wanted:
        element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
        infos.append(onnx.helper.make_tensor_value_info(tensor.name, element, tensor.shape))
        found = present.get(tensor.name)
        if found is not None and found.type.tensor_type.elem_type != element:
            raise ExportError(
                f"'{tensor.name}' has element type {tensor.dtype} in Keras, and in the graph "
                f"{onnx.TensorProto.DataType.Name(found.type.tensor_type.elem_type)}"
            )
    del values[:]
    values.extend(infos)


def _describe(model: onnx.ModelProto, contract: Contract, opset: int) -> None:
    model.producer_name = "keras-blocks"
    model.producer_version = version("keras-blocks")
    model.doc_string = ""
    facts = {METADATA_KEY: contract.to_json(), "keras_blocks.opset": str(opset)}
    facts |= {f"keras_blocks.{package}": version(package) for package in _PRODUCERS}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(facts.items())))


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ExportError(f"the converted graph is not valid ONNX: {reason[0]}") from error
