"""Convolutions of volumes with groups.

tf2onnx finds the groups of flat convolutions only, and onnxruntime then refuses the kernel.
"""

from __future__ import annotations

from typing import Any

from tf2onnx.onnx_opset.nn import ConvOp

from keras_blocks.export.lowerings.registry import converts


@converts("Conv3D")
def convert_conv_3d(context: Any, node: Any, name: str, args: Any) -> None:
    """ONNX's Conv; its groups are the input's channels by those that the kernel reads."""
    channels_last = node.get_attr_value("data_format", b"NDHWC") == b"NDHWC"
    channels = context.get_shape(node.input[0])[-1 if channels_last else 1]
    read = context.get_shape(node.input[1])[-2]
    ConvOp.any_version(context.opset, context, node)
    node.set_attr("group", channels // read)
