"""The last step: names, dims, opset, metadata; refuses what no runtime could load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

import numpy as np
import onnx
import onnx.checker
import onnx.defs
import onnx.helper
import onnx.version_converter

from keras_blocks.contract import METADATA_KEY, Contract, FlatTensor
from keras_blocks.errors import ExportError
from keras_blocks.export.empty_shapes import allow_empty_shapes

# onnxruntime's own domain; its ops are known to it, not to onnx.
RUNTIME_DOMAIN = "com.microsoft"
_PRODUCERS = ("keras", "tensorflow", "tf2onnx", "onnx")


def finish(
    model: onnx.ModelProto,
    contract: Contract,
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int,
) -> onnx.ModelProto:
    """Names, cleans and checks a converted model.

    Args:
        model: the model as tf2onnx left it.
        contract: the names, element types and dims that it is to have.
        inputs: its present input names, in the order of `contract.flat_inputs()`.
        outputs: its present output names, in the order of `contract.flat_outputs()`.
        opset: int, the version of the ONNX operators that it is to have.

    Raises:
        ExportError: the graph holds an op or an element type that no runtime knows.
    """
    model = _at_opset(model, opset)
    graph = model.graph
    _refuse_unknown_ops(model)
    wanted_inputs, wanted_outputs = contract.flat_inputs(), contract.flat_outputs()
    renamed = dict(zip(inputs, (t.name for t in wanted_inputs), strict=True))
    renamed |= dict(zip(outputs, (t.name for t in wanted_outputs), strict=True))
    _rename(graph, renamed)
    _remove_dead(graph)
    allow_empty_shapes(graph)
    _set_values(graph.input, wanted_inputs)
    _set_values(graph.output, wanted_outputs)
    del graph.value_info[:]
    _describe(model, contract, opset)
    _check(model)
    return model


def nested_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the graphs inside its nodes (loop bodies, branches)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from nested_graphs(attribute.g)


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
    unknown = {}
    for graph in nested_graphs(model.graph):
        for node in graph.node:
            if node.domain == RUNTIME_DOMAIN:
                continue
            if not onnx.defs.has(node.op_type, opset.get(node.domain, 1), node.domain):
                unknown.setdefault(node.op_type, node.name)
    if unknown:
        ops = ", ".join(f"{op} (node '{name}')" for op, name in sorted(unknown.items()))
        raise ExportError(f"the model uses operations that have no ONNX form here: {ops}")


def _rename(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    """Gives tensors their new names; tensors inside that have these names by chance step aside."""
    clash = set(renamed.values()) - set(renamed)
    taken = {name for inner in nested_graphs(graph) for name in _names(inner)} | set(clash)
    aside = {}
    for name in sorted(clash):
        count = 1
        while f"{name}__{count}" in taken:
            count += 1
        aside[name] = f"{name}__{count}"
        taken.add(aside[name])
    new = aside | renamed
    for inner in nested_graphs(graph):
        for node in inner.node:
            node.input[:] = [new.get(name, name) for name in node.input]
            node.output[:] = [new.get(name, name) for name in node.output]
        for value in (*inner.input, *inner.output, *inner.initializer):
            value.name = new.get(value.name, value.name)


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.output
    for value in (*graph.input, *graph.initializer):
        yield value.name


def _remove_dead(graph: onnx.GraphProto) -> None:
    """Removes nodes and weights that no output needs, and weights that are there twice."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    needed.update(_outer_names(attribute.g))
    kept.reverse()
    del graph.node[:]
    graph.node.extend(kept)
    weights = {weight.name: weight for weight in graph.initializer if weight.name in needed}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    same: dict[str, str] = {}
    for name, weight in weights.items():
        key = (weight.data_type, tuple(weight.dims), _content(weight))
        same[name] = first.setdefault(key, name)
    outputs = {value.name for value in graph.output}
    for inner in nested_graphs(graph):
        for node in inner.node:
            node.input[:] = [same.get(name, name) for name in node.input]
    unique = [
        weight for name, weight in weights.items() if same[name] == name or name in outputs
    ]
    del graph.initializer[:]
    graph.initializer.extend(unique)


def _content(weight: onnx.TensorProto) -> bytes:
    nameless = onnx.TensorProto()
    nameless.CopyFrom(weight)
    nameless.name = ""
    return nameless.SerializeToString(deterministic=True)


def _outer_names(graph: onnx.GraphProto) -> set[str]:
    """What a nested graph reads from the graphs around it, generously."""
    return {
        name
        for inner in nested_graphs(graph)
        for names in (*(node.input for node in inner.node), [o.name for o in inner.output])
        for name in names
    }


def _set_values(values: Iterable[onnx.ValueInfoProto], wanted: Sequence[FlatTensor]) -> None:
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
