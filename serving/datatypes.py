"""One element type, three spellings: the contract's, the protocol's and onnxruntime's."""

from __future__ import annotations

import numpy as np

STRING = "string"

_TABLE = (
    # contract, protocol, onnxruntime
    ("bool", "BOOL", "tensor(bool)"),
    ("int8", "INT8", "tensor(int8)"),
    ("int16", "INT16", "tensor(int16)"),
    ("int32", "INT32", "tensor(int32)"),
    ("int64", "INT64", "tensor(int64)"),
    ("uint8", "UINT8", "tensor(uint8)"),
    ("uint16", "UINT16", "tensor(uint16)"),
    ("uint32", "UINT32", "tensor(uint32)"),
    ("uint64", "UINT64", "tensor(uint64)"),
    ("float16", "FP16", "tensor(float16)"),
    ("float32", "FP32", "tensor(float)"),
    ("float64", "FP64", "tensor(double)"),
    (STRING, "BYTES", "tensor(string)"),
)

PROTOCOL = {contract: protocol for contract, protocol, _ in _TABLE}
"""Contract dtype -> the protocol's datatype."""

FROM_ONNXRUNTIME = {onnxruntime: contract for contract, _, onnxruntime in _TABLE}
"""onnxruntime's type -> contract dtype."""


def numpy_dtype(dtype: str) -> np.dtype:
    """The dtype of the arrays that carry a contract dtype; text is an array of `str` objects."""
    return np.dtype(object) if dtype == STRING else np.dtype(dtype)
