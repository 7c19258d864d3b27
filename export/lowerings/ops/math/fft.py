"""Fourier transforms of real signals, and the parts of their results.

ONNX has no complex numbers: its DFT gives the real and the imaginary part along a last axis of 2.
tf2onnx takes a transform for nothing but the magnitude.
"""

from __future__ import annotations

from typing import Any

from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import cast, constant
from keras_blocks.export.lowerings.registry import converts

OLDEST_OPSET = 17
_PARTS = {"Real": 0, "Imag": 1}
_MAGNITUDE = "ComplexAbs"


@converts("RFFT")
def convert_rfft(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's DFT of one side, if what reads it wants its parts only."""
    if context.opset < OLDEST_OPSET:
        raise ExportError(
            f"node '{name}' is a Fourier transform, which ONNX has since opset {OLDEST_OPSET}. "
            f"Choose opset_version={OLDEST_OPSET} or more (--opset)."
        )
    (output,) = node.output
    readers = {reader.type for reader in context.find_output_consumers(output)}
    if readers - {*_PARTS, _MAGNITUDE, "DFT"}:
        raise ExportError(
            f"node '{name}' gives complex numbers to {', '.join(sorted(readers))}, and ONNX has "
            "none. Take the real and the imaginary part first."
        )
    given, lengths = node.input
    dtype = context.get_dtype(given)
    axis = context.get_rank(given) - 1
    context.remove_node(name)
    last = constant(context, name, [-1])
    signal = context.make_node("Unsqueeze", [given, last], dtypes=[dtype]).output[0]
    length = cast(context, lengths, TensorProto.INT64)
    none = constant(context, name, [])
    length = context.make_node("Reshape", [length, none], dtypes=[TensorProto.INT64]).output[0]
    context.make_node(
        "DFT",
        [signal, length],
        attr={"axis": axis, "onesided": 1},
        outputs=[output],
        name=name,
        dtypes=[dtype],
    )


@converts(*_PARTS)
def convert_part(context: Any, node: Any, name: str, args: Any) -> None:
    """One of the two along the last axis."""
    index = constant(context, name, _PARTS[node.type])
    _replace(context, node, "Gather", [node.input[0], index], axis=-1)


@converts(_MAGNITUDE)
def convert_magnitude(context: Any, node: Any, name: str, args: Any) -> None:
    """sqrt(real^2 + imaginary^2)."""
    if context.opset < 18:
        _replace(context, node, "ReduceL2", [node.input[0]], axes=[-1], keepdims=0)
        return
    axes = constant(context, name, [-1])
    _replace(context, node, "ReduceL2", [node.input[0], axes], keepdims=0)


def _replace(context: Any, node: Any, op_type: str, inputs: list[str], **attributes: Any) -> None:
    producer = context.get_node_by_output(node.input[0])
    if producer is None or producer.type not in ("RFFT", "DFT"):
        raise ExportError(
            f"node '{node.name}' takes complex numbers that no Fourier transform of a real signal "
            "gave, and ONNX has none"
        )
    outputs, shapes, dtypes = list(node.output), node.output_shapes, node.output_dtypes
    context.remove_node(node.name)
    context.make_node(
        op_type, inputs, attributes, outputs=outputs, name=node.name, shapes=shapes, dtypes=dtypes
    )
