"""Requests of unequal length in one run: rows are filled up with steps that the model masks.

The contract says which inputs a model masks and by which value (`TensorSpec.padding`). Padding
changes no answer, but costs time: only requests whose lengths have as many binary digits share a
run, so that less than half of it is padding.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.dtypes import STRING

_TIME_AXIS = 1


@dataclass(frozen=True)
class Padding:
    """What is filled up, and what is cut off again.

    Args:
        values: input -> what its further steps hold.
        masked: those of `values` whose further steps the model masks.
        outputs: output -> its axes that get longer, each with the input that it is as long as.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    masked: tuple[str, ...] = ()
    outputs: Mapping[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)

    def key(self, inputs: Mapping[str, np.ndarray]) -> Hashable:
        """Requests of equal keys can be filled up to the longest of them."""
        if not self.values:
            return None
        fits = self.fits(inputs)
        shapes = [inputs[name].shape[_TIME_AXIS:] for name in self.values]
        return fits, *((size.bit_length() if fits else size, *rest) for size, *rest in shapes)

    def fits(self, inputs: Mapping[str, np.ndarray]) -> bool:
        """Whether each row has a step that is not masked.

        Where all are, a softmax over them gives each the same weight, those of the padding too.
        """
        return all(_has_steps(inputs[name], self.values[name]) for name in self.masked)

    def join(self, name: str, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """The arrays of several requests for one input, laid after one another.

        Example:
            >>> padding = Padding({"x": 0}, ("x",))
            >>> padding.join("x", [np.array([[4, 7, 7]]), np.array([[9], [8]])]).tolist()
            [[4, 7, 7], [9, 0, 0], [8, 0, 0]]
        """
        if name not in self.values or len({array.shape[_TIME_AXIS] for array in arrays}) == 1:
            return np.concatenate(arrays)
        longest = max(array.shape[_TIME_AXIS] for array in arrays)
        shape = (sum(map(len, arrays)), longest, *arrays[0].shape[_TIME_AXIS + 1 :])
        joined = np.full(shape, self.values[name], arrays[0].dtype)
        row = 0
        for array in arrays:
            joined[row : row + len(array), : array.shape[_TIME_AXIS]] = array
            row += len(array)
        return joined

    def cut(self, name: str, array: np.ndarray, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """An output of one request without the steps that were filled in."""
        for axis, source in self.outputs.get(name, ()):
            steps = inputs[source].shape[_TIME_AXIS]
            array = array[(slice(None),) * axis + (slice(steps),)]
        return array


def plan_padding(contract: Contract) -> Padding:
    """What a contract allows to be padded; nothing where it does not say how.

    A dim that is padded may be the second one of several inputs, and any of an output.
    """
    masked = {spec.shape[_TIME_AXIS]: spec.name for spec in contract.inputs if _is_masked(spec)}
    filled = [
        spec
        for spec in contract.inputs
        if not spec.ragged and len(spec.shape) > _TIME_AXIS and spec.shape[_TIME_AXIS] in masked
    ]
    others = [dim for spec in contract.inputs for dim in spec.shape[_TIME_AXIS + 1 :]]
    others += [dim for spec in contract.outputs if spec.ragged for dim in spec.shape]
    if any(dim in masked for dim in others) or any(spec.dtype == STRING for spec in filled):
        return Padding()
    outputs = {
        spec.name: tuple((i, masked[dim]) for i, dim in enumerate(spec.shape) if dim in masked)
        for spec in contract.outputs
    }
    return Padding(
        {spec.name: _value(spec) for spec in filled},
        tuple(spec.name for spec in filled if _is_masked(spec)),
        {name: axes for name, axes in outputs.items() if axes},
    )


def _is_masked(spec: TensorSpec) -> bool:
    dims = () if spec.ragged else spec.shape[_TIME_AXIS:]
    return spec.padding is not None and bool(dims) and isinstance(dims[0], str)


def _value(spec: TensorSpec) -> float:
    """What masks a step; of an input that is masked by another, the allowed value next to 0."""
    if spec.padding is not None:
        return spec.padding
    low = -math.inf if spec.minimum is None else spec.minimum
    high = math.inf if spec.maximum is None else spec.maximum
    return min(max(0, low), high)


def _has_steps(array: np.ndarray, value: float) -> bool:
    steps = array != value
    return bool(steps.any(axis=tuple(range(1, array.ndim))).all())
