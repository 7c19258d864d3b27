"""Small parts that converters put beside the node they convert."""

from __future__ import annotations

from typing import Any

import numpy as np
from tf2onnx import utils


def cast(context: Any, tensor: str, dtype: int) -> str:
    """The tensor as this ONNX element type; itself where it has it."""
    if context.get_dtype(tensor) == dtype:
        return tensor
    return context.make_node("Cast", [tensor], attr={"to": dtype}).output[0]


def constant(context: Any, name: str, values: Any, dtype: Any = np.int64) -> str:
    """A constant of NumPy's element type, named after the node that it is for."""
    array = np.array(values, dtype)
    return context.make_const(utils.make_name(name), array).output[0]
