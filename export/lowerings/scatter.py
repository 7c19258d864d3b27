"""Values put, added or compared into places of a tensor, as a tree's children reach their parent.

onnxruntime adds no float16 on CPU, and ONNX knows sums since opset 16, maxima since 18.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto
from onnx.helper import tensor_dtype_to_np_dtype

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import converts

_FORMS: dict[str, tuple[str | None, int]] = {
    "TensorScatterUpdate": (None, 11),
    "TensorScatterAdd": ("add", 16),
    "TensorScatterMax": ("max", 18),
    "TensorScatterMin": ("min", 18),
}
"""For each TensorFlow op the reduction in ONNX, and the opset that has it."""


@converts(*_FORMS)
def convert_tensor_scatter(context: Any, node: Any, name: str, args: Any) -> None:
    """ScatterND, with a reduction or none; float16 is reduced as float32."""
    reduction, oldest = _FORMS[node.type]
    if context.opset < oldest:
        raise ExportError(
            f"node '{name}' has the form of {node.type}, which trees use, and ONNX has it since "
            f"opset {oldest}. Choose opset_version={oldest} or more."
        )
    (data, indices, updates), outputs = node.input, list(node.output)
    shapes, (dtype,) = node.output_shapes, node.output_dtypes
    context.remove_node(name)

    def cast(given: str, to: int) -> str:
        if context.get_dtype(given) == to:
            return given
        return context.make_node("Cast", [given], attr={"to": to}).output[0]

    attr = {} if reduction is None else {"reduction": reduction}
    given = [data, cast(indices, TensorProto.INT64), updates]
    if dtype != TensorProto.FLOAT16 or reduction is None:
        context.make_node(
            "ScatterND", given, attr, outputs=outputs, name=name, shapes=shapes, dtypes=[dtype]
        )
        return
    single = TensorProto.FLOAT
    given = [cast(data, single), given[1], cast(updates, single)]
    result = context.make_node("ScatterND", given, attr, shapes=shapes, dtypes=[single]).output[0]
    context.make_node(
        "Cast", [result], {"to": dtype}, outputs=outputs, name=name, shapes=shapes, dtypes=[dtype]
    )


@converts("ScatterNd")
def convert_scatter_nd(context: Any, node: Any, name: str, args: Any) -> None:
    """Values added onto zeros, which tf2onnx puts: of values for one place it keeps the last."""
    indices, updates, shape = node.input
    sizes = context.make_node("Cast", [shape], attr={"to": TensorProto.INT64}).output[0]
    dtype = tensor_dtype_to_np_dtype(context.get_dtype(updates))
    zero = context.make_const(f"{name}_zero", np.zeros((), dtype))
    zeros = context.make_node(
        "Expand", [zero.output[0], sizes], dtypes=[context.get_dtype(updates)]
    )
    node.type = "TensorScatterAdd"
    context.replace_inputs(node, [zeros.output[0], indices, updates])
    convert_tensor_scatter(context, node, name, args)
