"""What a model computes in bfloat16, its file computes in float32.

onnxruntime has next to no kernels for bfloat16 on CPU, and NumPy and JSON do not know the type.
Every bfloat16 is a float32 too: the file keeps the weights as they are and rounds less than the
model.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

_NARROW, _WIDE = tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum


def file_dtype(dtype: str) -> str:
    """The element type that an input or output of the model has in the file."""
    return "float32" if dtype == "bfloat16" else dtype


def in_file_dtype(tensor: tf.Tensor) -> tf.Tensor:
    """An output of the model as the file gives it."""
    wanted = file_dtype(tensor.dtype.name)
    return tensor if tensor.dtype.name == wanted else tf.cast(tensor, wanted)


def computes_in(model: keras.Model, dtype: str) -> bool:
    """Whether a layer of the model has been told to."""
    return any(layer.compute_dtype == dtype for layer in model._flatten_layers())


def widen(graph_def: Any) -> None:
    """Makes float32 of all that is bfloat16 in a graph and in its functions."""
    for node in graph_def.node:
        _widen_node(node)
    for function in graph_def.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type == _NARROW:
                argument.type = _WIDE
        for node in function.node_def:
            _widen_node(node)


def _widen_node(node: Any) -> None:
    is_cast = node.op == "Cast"
    for attribute in node.attr.values():
        if attribute.type == _NARROW:
            attribute.type = _WIDE
        elif attribute.HasField("list"):
            types = attribute.list.type
            types[:] = [_WIDE if element == _NARROW else element for element in types]
        elif attribute.tensor.dtype == _NARROW:
            values = tf.make_ndarray(attribute.tensor).astype(np.float32)
            attribute.tensor.CopyFrom(tf.make_tensor_proto(values))
    if is_cast and node.attr["SrcT"].type == node.attr["DstT"].type:
        node.op = "Identity"
        node.attr["T"].type = node.attr["DstT"].type
        for name in ("SrcT", "DstT", "Truncate"):
            del node.attr[name]
