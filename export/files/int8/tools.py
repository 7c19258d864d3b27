"""onnxruntime's quantisation tools, driven part by part; nothing else here knows them."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx.helper

from keras_blocks.contract.feeds import Feed, as_feeds
from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.atomic_write import serialized
from keras_blocks.export.onnx_io.graphs import copied
from keras_blocks.export.onnx_io.reading import opened
from keras_blocks.runtime.file_contract import file_contract
from keras_blocks.runtime.runner import OnnxRunner, first_line

# What passes int8 on, so that nothing need become float32 between two convolutions.
_PASSING = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Pad",
    "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
MIN_ELEMENTS = 4096  # a smaller weight saves nothing, and costs the time to quantise its inputs
# Without this in a model the tools ask to have it prepared, which our exports need not be.
_PREPARED = "onnx.quant.pre_process"


@dataclass(frozen=True)
class Scales:
    """How the weights of products are scaled: for each channel or as a whole, to 7 bits or to 8."""

    per_channel: bool = True
    seven_bits: bool = True

    def options(self) -> dict[str, Any]:
        """As the tools take them."""
        return {
            "per_channel": self.per_channel,
            "reduce_range": self.seven_bits,
            "extra_options": {"EnableSubgraph": False, "MatMulConstBOnly": True},
        }


class Dynamic:
    """Finds the range of what goes into a product in every run."""

    way = "dynamic int8"
    # By op, where its weights are.
    places: Mapping[str, tuple[int, ...]] = {
        "Gather": (0,),
        "Gemm": (1,),
        "LSTM": (1, 2),
        "MatMul": (1,),
    }
    slower: frozenset[str] = frozenset()
    smallest: Mapping[str, int] = {}
    everywhere = True  # in loops and branches too
    weight_type = "QInt8"

    def __call__(
        self, model: onnx.ModelProto, part: onnx.ModelProto, names: Collection[str], scales: Scales
    ) -> onnx.ModelProto:
        """The part with the named nodes in int8.

        Raises:
            ExportError: the tool fails.
        """
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _prepared(part) as (prepared, target):
            quantize_dynamic(
                prepared,
                target,
                op_types_to_quantize=list(self.places),
                nodes_to_quantize=[*names, *map(_product_of, names)],
                weight_type=QuantType[self.weight_type],
                **scales.options(),
            )
            changed = onnx.load(target)
        _drop_zero_points_of_stacks(changed)
        return changed

    def did(self, changed: onnx.ModelProto, name: str) -> bool:
        """Whether the node is in int8: it has another name then, or reads int8 itself."""
        kinds = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
        small = {w.name for w in changed.graph.initializer if w.data_type in kinds}
        same = {name, _product_of(name)}
        found = [node for node in changed.graph.node if node.name in same]
        return all(small.intersection(node.input) for node in found)


def _product_of(gemm: str) -> str:
    """The name that the tool gives the product in a Gemm, which it takes apart first."""
    return f"{gemm}_MatMul"


def _drop_zero_points_of_stacks(model: onnx.ModelProto) -> None:
    """The zero points of stacked matrices are all 0, of a shape that MatMulInteger refuses."""
    ranks = {weight.name: len(weight.dims) for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger" and ranks.get(node.input[1], 0) > 2:
            del node.input[3:]


class DynamicConvolution(Dynamic):
    """Dynamic for convolutions: uint8 by uint8, which onnxruntime computes ten times as fast there
    as uint8 by int8, and exactly on every processor, so that all 8 bits are used."""

    places: Mapping[str, tuple[int, ...]] = {"Conv": (1,)}
    # It takes up to twice the time of Conv in float32; who wants the size asks for it.
    slower = frozenset({"Conv"})
    weight_type = "QUInt8"

    def __call__(
        self, model: onnx.ModelProto, part: onnx.ModelProto, names: Collection[str], scales: Scales
    ) -> onnx.ModelProto:
        """The part with the named nodes in int8; see `Dynamic`."""
        return super().__call__(model, part, names, replace(scales, seven_bits=False))


class Static:
    """Fixes the ranges beforehand, from the user's data."""

    way = "static int8"
    places: Mapping[str, tuple[int, ...]] = {
        "Conv": (1,),
        "ConvTranspose": (1,),
        "Gemm": (1,),
        "MatMul": (1,),
    }
    slower: frozenset[str] = frozenset()
    # One float convolution between two in int8 costs more than its weights.
    smallest: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 0}
    everywhere = False

    def __init__(self, feeds: Sequence[Feed]):
        self.feeds = feeds

    def __call__(
        self, model: onnx.ModelProto, part: onnx.ModelProto, names: Collection[str], scales: Scales
    ) -> onnx.ModelProto:
        """The part with the named nodes in int8.

        Raises:
            ExportError: the tool fails, or the model refuses the data.
        """
        from onnxruntime.quantization import (
            CalibrationDataReader,
            QuantFormat,
            QuantType,
            quantize_static,
        )

        class Reader(CalibrationDataReader):
            def __init__(self, feeds: Iterator[Feed]):
                self.feeds = feeds

            def get_next(self) -> Feed | None:
                return next(self.feeds, None)

        able = [node.name for node in part.graph.node if node.op_type in self.places]
        with _prepared(part) as (prepared, target):
            quantize_static(
                prepared,
                target,
                Reader(_part_feeds(model, part, self.feeds)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=[*self.places, *_PASSING],
                nodes_to_exclude=[name for name in able if name not in names],
                # On x86 the kernels for uint8 by int8 are up to three times as fast as the others.
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                **scales.options(),
            )
            return onnx.load(target)

    def did(self, changed: onnx.ModelProto, name: str) -> bool:
        """Whether the node is in int8: its weights then come out of a DequantizeLinear."""
        floats = float_shapes(changed.graph)
        node = next(node for node in changed.graph.node if node.name == name)
        return all(node.input[place] not in floats for place in self.places[node.op_type])


Tool = Dynamic | Static


@dataclass(frozen=True)
class Choice:
    """What a tool is to quantise: nodes of some ops, whose weights are large enough.

    Args:
        tool: the tool.
        smallest: op -> the number of elements that a weight must have.
    """

    tool: Tool
    smallest: Mapping[str, int]

    def nodes(self, graph: onnx.GraphProto) -> dict[str, str]:
        """The chosen nodes of a graph: name -> op."""
        shapes = float_shapes(graph)
        return {node.name: node.op_type for node in graph.node if self._chosen(node, shapes)}

    def _chosen(self, node: onnx.NodeProto, shapes: Mapping[str, Sequence[int]]) -> bool:
        if node.op_type not in self.smallest:
            return False
        read = [node.input[i] for i in self.tool.places[node.op_type] if i < len(node.input)]
        weights = [shapes.get(name, ()) for name in read]
        # One column has no channels, and onnxruntime no kernel for it.
        return bool(weights) and all(
            len(shape) > 1 and math.prod(shape) >= self.smallest[node.op_type] for shape in weights
        )


def choices(
    feeds: Sequence[Feed], ops: Sequence[str] | None, min_elements: int | None
) -> list[Choice]:
    """Which tool does what.

    Args:
        feeds: the calibration data; with it products are static, and what has no static form is
            dynamic.
        ops: the ops that are asked for; None takes those that are no slower for it.
        min_elements: int, smaller weights stay as they are; None chooses by op.
    Raises:
        ValueError: an op has no int8 form.
    """
    static: list[Tool] = [Static(feeds)] if feeds else []
    tools = [*static, Dynamic(), DynamicConvolution()]
    homes: dict[str, Tool] = {}
    for tool in tools:
        homes |= {op: tool for op in tool.places if op not in homes}
    asked = [op for op in homes if op not in homes[op].slower] if ops is None else list(ops)
    for op in asked:
        if op not in homes:
            raise ValueError(
                f"ops: '{op}' has no int8 form here; {', '.join(sorted(homes))} have. "
                f"Received: ops={asked}"
            )
    return [
        Choice(
            tool,
            {
                op: tool.smallest.get(op, MIN_ELEMENTS) if min_elements is None else min_elements
                for op in asked
                if homes[op] is tool
            },
        )
        for tool in tools
    ]


def float_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes of the float32 weights of a graph."""
    return {
        weight.name: tuple(weight.dims)
        for weight in graph.initializer
        if weight.data_type == onnx.TensorProto.FLOAT
    }


def calibration_feeds(path: Path, data: Any) -> list[Feed]:
    """The user's calibration data as the flat inputs of a file.

    Raises:
        ContractError: it does not fit, or is empty.
    """
    return as_feeds(file_contract(opened(path)), data, "calibration")


def _part_feeds(
    model: onnx.ModelProto, part: onnx.ModelProto, feeds: Sequence[Feed]
) -> Iterator[Feed]:
    """The inputs of a part for each of the model's: what loops and branches give is computed."""
    own = {value.name for value in model.graph.input}
    extra = [value for value in part.graph.input if value.name not in own]
    augmented = copied(model)
    augmented.graph.output.extend(extra)
    side = OnnxRunner(serialized(augmented))
    wanted = [value.name for value in part.graph.input]
    for feed in feeds:
        computed = side.run(feed, [value.name for value in extra]) if extra else {}
        yield {name: computed[name] if name in computed else feed[name] for name in wanted}


@contextmanager
def _prepared(part: onnx.ModelProto) -> Iterator[tuple[onnx.ModelProto, str]]:
    """A copy for a tool to take apart, and where to put the result; all errors are one."""
    prepared = copied(part)
    onnx.helper.set_model_props(prepared, {_PREPARED: "keras_blocks"})
    for node in prepared.graph.node:
        if node.op_type == "DequantizeLinear":
            node.name += "_before"  # the tools take those of a certain name for their own
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # of tensors that it cannot type, which it then leaves alone
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield prepared, str(Path(folder) / "part.onnx")
    except Exception as error:  # the tools raise whatever goes wrong inside
        raise ExportError(f"onnxruntime cannot quantise the model: {first_line(error)}") from error
    finally:
        logging.disable(level)
