"""Refuses inputs that are too short for the windows inside the model.

onnxruntime gives a step where no window fits. One reshape of the input, to its own shape or to a
larger one that it cannot have, costs nothing, and its name says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from keras_blocks.contract import FlatTensor
from keras_blocks.export.onnx_io.graphs import copied, read_instead, set_all


def refuse_short_inputs(graph: onnx.GraphProto, inputs: Iterable[FlatTensor]) -> None:
    """Puts before what reads an input the node that refuses it.

    Args:
        graph: the graph of a model.
        inputs: those of the graph, with their least sizes.
    """
    checks: list[onnx.NodeProto] = []
    checked: dict[str, str] = {}
    least = {tensor.name: tensor.least for tensor in inputs}
    for value in graph.input:
        if any(least[value.name]):
            checks += _check(graph, value, least[value.name])
            checked[value.name] = checks[-1].output[0]
    nodes = [copied(node) for node in graph.node]
    for node in nodes:
        read_instead(node, checked)
    set_all(graph.node, [*checks, *nodes])


def _check(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, sizes: tuple[int, ...]
) -> list[onnx.NodeProto]:
    asked = [f"axis_{axis}_is_at_least_{size}" for axis, size in enumerate(sizes) if size]
    said = "_and_".join(asked)
    scope = f"{graph.name}/{value.name}/{said}"

    def constant(name: str, values: object) -> str:
        array = np.array(values, "int64")
        weight = onnx.numpy_helper.from_array(array, f"{scope}/{name}")
        graph.initializer.append(weight)
        return weight.name

    def apply(op_type: str, *inputs: str, **options: Any) -> onnx.NodeProto:
        name = f"{scope}/{op_type}"
        return onnx.helper.make_node(op_type, inputs, [name], name, **options)

    shape = apply("Shape", value.name)
    # Only a batch without rows has the larger shape too, and gives none either way.
    wanted = apply("Max", shape.output[0], constant("least", sizes))
    same = apply("Reshape", value.name, wanted.output[0], allowzero=1)
    known = graph.value_info.add()
    known.CopyFrom(value)
    known.name = same.output[0]
    return [shape, wanted, same]
