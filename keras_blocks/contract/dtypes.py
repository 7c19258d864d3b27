"""One element type, three spellings: the contract's, the protocol's and onnxruntime's.

Nothing here needs onnxruntime, so that clients do not load it.
"""

from __future__ import annotations

import numpy as np

STRING = "string"
BFLOAT16 = "bfloat16"
"""NumPy has no such type: its arrays hold the 16 bits as uint16, see `from_bfloat16`."""

ANY_SHAPE = ("...",)
"""The shape of a graph input of unknown rank; onnxruntime cannot tell it from a single number."""

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
    (BFLOAT16, "BF16", "tensor(bfloat16)"),
    (STRING, "BYTES", "tensor(string)"),
)

PROTOCOL = {contract: protocol for contract, protocol, _ in _TABLE}
"""Contract dtype -> the protocol's datatype."""

FROM_ONNXRUNTIME = {onnxruntime: contract for contract, _, onnxruntime in _TABLE}
"""onnxruntime's type -> contract dtype."""


_NUMPY = {
    contract: np.dtype({STRING: "object", BFLOAT16: "uint16"}.get(contract, contract))
    for contract, _, _ in _TABLE
}


def numpy_dtype(dtype: str) -> np.dtype:
    """The dtype of the arrays that carry a contract dtype; text is an array of `str` objects."""
    return _NUMPY[dtype]


_WIRE = {contract: dtype.newbyteorder("<") for contract, dtype in _NUMPY.items()}


def wire_dtype(dtype: str) -> np.dtype:
    """The dtype of a contract dtype as raw bytes hold it."""
    return _WIRE[dtype]


def to_bfloat16(array: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16s: the upper half of a float32, ties to even.

    Example:
        >>> to_bfloat16(np.array([1.0, -2.5], dtype="float32")).tolist()
        [16256, 49184]
    """
    bits = np.ascontiguousarray(array, dtype="float32").view("uint32")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry the bits of a NaN into an infinity.
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("uint16")


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """The float32s of bfloat16 bits.

    Example:
        >>> from_bfloat16(np.array([16256, 49184], dtype="uint16")).tolist()
        [1.0, -2.5]
    """
    return (bits.astype("uint32") << 16).view("float32")
