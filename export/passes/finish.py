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

from keras_blocks.contract import METADATA_KEY, Contract, FlatTensor
from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.external_data import Apart, attach, graph_alone
from keras_blocks.export.onnx_io.graphs import RUNTIME_DOMAIN, nested_graphs
from keras_blocks.export.passes.conv_folding import fold_into_convolutions
from keras_blocks.export.passes.deduplication import prune
from keras_blocks.export.passes.empty_shapes import allow_empty_shapes
from keras_blocks.export.passes.float64 import write_out_float64
from keras_blocks.export.passes.folding import fold_weights
from keras_blocks.export.passes.gelu import fuse_gelu
from keras_blocks.export.passes.layout import settle_layout
from keras_blocks.export.passes.loop_invariants import simplify_loops
from keras_blocks.export.passes.naming import rename
from keras_blocks.export.passes.opset.given_ranges import give_copies_of_ranges
from keras_blocks.export.passes.opset.least import lower
from keras_blocks.export.passes.opset.newest import (
    NEWEST_OPSET,
    lift,
    opset_of,
    opsets_of,
    version_facts,
)
from keras_blocks.export.passes.short_inputs import refuse_short_inputs

_PRODUCERS = ("keras", "tensorflow", "tf2onnx", "onnx")


def finish(
    model: onnx.ModelProto,
    contract: Contract,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int | None,
    name: str,
    apart: Apart,
) -> onnx.ModelProto:
    """Names, cleans and checks a converted model.

    Args:
        model: the model as tf2onnx left it.
        contract: the names, element types and dims that it is to have.
        inputs: its present input names, in the order of `contract.flat_inputs()`.
        outputs: its present output names, in the order of `contract.flat_outputs()`.
        opset: int, the version of the ONNX operators that it is to have; None for the lowest with
            which it is what it would be at the newest.
        name: str, that of the graph.
        apart: those of its present inputs that are weights; more may be added.

    Raises:
        ExportError: the graph holds an op or an element type that no runtime knows.
    """
    newest = NEWEST_OPSET if opset is None else opset
    lift(model, max(newest, opset_of(model)))
    graph = model.graph
    _refuse_unknown_ops(model)
    wanted_inputs, wanted_outputs = contract.flat_inputs(), contract.flat_outputs()
    renamed = dict(zip(inputs, (t.name for t in wanted_inputs), strict=True))
    renamed |= dict(zip(outputs, (t.name for t in wanted_outputs), strict=True))
    simplify_loops(graph)
    fold_weights(graph, opset_of(model), apart)
    settle_layout(graph)
    fold_into_convolutions(graph)
    fuse_gelu(graph, newest)
    write_out_float64(model)
    attach(graph, apart)
    prune(graph, name)
    allow_empty_shapes(graph)
    lower(model, opset)
    rename(graph, renamed, name)
    give_copies_of_ranges(graph)
    graph.name = name
    _set_values(graph.input, wanted_inputs)
    _set_values(graph.output, wanted_outputs)
    refuse_short_inputs(graph, wanted_inputs)
    _describe(model, contract)
    _check(model)
    return model


def _refuse_unknown_ops(model: onnx.ModelProto) -> None:
    opset = opsets_of(model)
    unknown: dict[str, str] = {}
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            if node.domain == RUNTIME_DOMAIN:
                continue
            if not onnx.defs.has(node.op_type, opset.get(node.domain or "ai.onnx", 1), node.domain):
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


def _describe(model: onnx.ModelProto, contract: Contract) -> None:
    model.producer_name = "keras-blocks"
    model.producer_version = version("keras-blocks")
    model.doc_string = ""
    facts = {METADATA_KEY: contract.to_json()} | version_facts(model)
    facts |= {f"keras_blocks.{package}": version(package) for package in _PRODUCERS}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted(facts.items())))


def _check(model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(graph_alone(model), full_check=True)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ExportError(f"the converted graph is not valid ONNX: {reason[0]}") from error
