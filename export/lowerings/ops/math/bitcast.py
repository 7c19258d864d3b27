"""The sign of floats, of zeros too, which Keras reads from their bits (in `argmax`, say).

ONNX shows no bits. The sign of a float is that of the number, and that of a zero is the sign of
its reciprocal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.node_builder import constant
from keras_blocks.export.lowerings.registry import converts

_SIGN_BIT = np.iinfo(np.int32).min


@converts("Bitcast")
def convert_bitcast(context: Any, node: Any, name: str, args: Any) -> None:
    """The sign bit alone, where that is all that is asked of the bits of a float32."""
    (given,), (bits,) = node.input, node.output
    masks = context.find_output_consumers(bits)
    if context.get_dtype(given) != TensorProto.FLOAT or not all(map(_is_sign_mask, masks)):
        raise ExportError(
            f"node '{name}' takes the bits of its input for numbers of another type, which ONNX "
            "cannot. Cast it, or do so before the model."
        )
    shape = context.get_shape(given)
    signs = _signs(context, given, name, {"shapes": [shape]})
    for mask in masks:
        # It stays, for its own turn will come.
        mask.type = "Identity"
        context.replace_inputs(mask, [signs])
    context.remove_node(name)


def _is_sign_mask(reader: Any) -> bool:
    if reader.type != "BitwiseAnd":
        return False
    constants = [part.get_tensor_value() for part in reader.inputs if part.is_const()]
    return constants == [_SIGN_BIT]


def _signs(context: Any, given: str, name: str, to: dict[str, Any]) -> str:
    """The sign bit in its place, all other bits 0."""
    truth = {"dtypes": [TensorProto.BOOL], **to}
    zero = constant(context, name, 0, np.float32)
    inverse = context.make_node("Reciprocal", [given], dtypes=[TensorProto.FLOAT], **to).output[0]
    negative = context.make_node("Less", [given, zero], **truth).output[0]
    # The reciprocal of a subnormal number is infinite too, with the same sign.
    below = context.make_node("Less", [inverse, zero], **truth).output[0]
    either = context.make_node("Or", [negative, below], **truth).output[0]
    choice = [constant(context, name, bits, np.int32) for bits in (_SIGN_BIT, 0)]
    chosen = context.make_node("Where", [either, *choice], dtypes=[TensorProto.INT32], **to)
    return chosen.output[0]
