"""The inputs of an ONNX file: what they must be, and a user's data brought into that form."""

from __future__ import annotations

import numpy as np

from keras_blocks.errors import ContractError


def as_dtype(array: np.ndarray, dtype: np.dtype, name: str, argument: str) -> np.ndarray:
    """The same numbers in another element type: none is wrapped around or made infinite.

    Raises:
        ContractError: the element type does not hold them.
    """
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    lost: np.ndarray = np.zeros(array.shape, bool)
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        info = np.iinfo(dtype)
        lost = (array < info.min) | (array > info.max)
    elif dtype.kind == "f":
        lost = np.isinf(result) & np.isfinite(array)
    if lost.any():
        index = tuple(map(int, np.argwhere(lost)[0]))
        raise ContractError(
            f"{argument}: input '{name}' is {array[index]} at {list(index)}, outside the range of "
            f"{dtype}",
            name,
        )
    return result
