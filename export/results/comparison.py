"""When two results are the same: exactly for integers, within rounding for floats.

A float passes when

    |onnx - keras| <= atol + rtol * max|keras|

over the whole tensor: a sum that happens to come out near 0 carries the rounding of its large
terms. The limits are tight, for a weight that is off by 1e-2 may move an output by 1e-4 only. Where
a model amplifies rounding by itself, as long recurrences and deep stacks can, the measured
amplification is allowed on top (`rounding_noise`). Of an output that is smaller than
`atol` throughout this says nothing: see `tiny_outputs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_blocks.export.results.checks import Worst

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Tolerance:
    """The largest error that passes is atol + rtol * (largest magnitude that Keras gave).

    `reason` says why these two.
    """

    rtol: float
    atol: float
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.atol:g} and {self.rtol:g} of the largest magnitude; {self.reason}"


_ROUNDINGS = "{} roundings of {} (eps {})"
# By the coarsest dtype that a model computes in: some 150 roundings of it, or ten where so many
# would prove nothing. Sums of thousands of terms stay under it, since their roundings mostly
# cancel, and so do onnxruntime's own approximations of exp, tanh and erf. The absolute error is one
# of terms of the order of 1, of which a small output may be the difference: onnxruntime's sigmoid
# is off by up to 1.3e-7, also where it runs out.
TOLERANCES = {
    "float64": Tolerance(1e-9, 1e-12, "out of float32's reach, so all of it was in float64"),
    "float32": Tolerance(2e-5, 3e-7, _ROUNDINGS.format(170, "float32", "1.2e-7")),
    "float16": Tolerance(1e-2, 1e-4, _ROUNDINGS.format(10, "float16", "9.8e-4")),
    "bfloat16": Tolerance(8e-2, 1e-3, _ROUNDINGS.format(10, "bfloat16", "7.8e-3")),
}
EXACT = Tolerance(0.0, 0.0)


@dataclass(frozen=True)
class Comparison:
    """How far one array is from another; the fields are those of `report.Check`."""

    max_error: float
    mean_error: float
    relative_error: float
    tolerance: float
    argmax_agreement: float | None
    worst: Worst | None
    problem: str | None


def compare(expected: np.ndarray, got: np.ndarray, tolerance: Tolerance) -> Comparison:
    """Compares what onnxruntime gave with what Keras gave; `tolerance` is for floats."""
    for what, want, have in (
        ("shape", list(expected.shape), list(got.shape)),
        ("dtype", expected.dtype, got.dtype),
    ):
        if want != have:
            differs = f"onnxruntime gives {what} {have}, Keras {want}"
            return Comparison(np.inf, np.inf, np.inf, 0.0, None, None, differs)
    if not expected.size:
        return Comparison(0.0, 0.0, 0.0, 0.0, None, None, None)
    floating = is_floating(expected.dtype)
    errors = _float_errors(expected, got) if floating else _exact_errors(expected, got)
    magnitude = magnitude_of(expected) if floating else 0.0
    allowed = tolerance.atol + tolerance.rtol * magnitude if floating else 0.0
    largest = float(errors.max())
    worst: Worst | None = None
    problem: str | None = None
    if largest > 0:
        index = tuple(int(i) for i in np.unravel_index(int(errors.argmax()), errors.shape))
        worst = Worst(index, got[index].item(), expected[index].item())
    if largest > allowed:
        wrong = int((errors > allowed).sum())
        limit = f"by {largest:.2g} where {allowed:.2g} is allowed" if floating else "but must equal"
        problem = f"the worst element, {worst}, is off {limit}; {wrong} of {errors.size} are off"
    return Comparison(
        max_error=largest,
        mean_error=float(errors.mean()),
        relative_error=_ratio(largest, magnitude),
        tolerance=allowed,
        argmax_agreement=_argmax_agreement(expected, got, allowed) if floating else None,
        worst=worst,
        problem=problem,
    )


def is_floating(dtype: Any) -> bool:
    """Whether a dtype is a float, bfloat16 included, which NumPy does not count among them."""
    return np.dtype(dtype).kind == "f" or np.dtype(dtype).name == "bfloat16"


def compute_dtype(model: keras.Model) -> str:
    """The coarsest float dtype in which a layer of the model computes."""
    order = list(TOLERANCES)
    dtypes = [layer.compute_dtype for layer in model._flatten_layers()]
    return max((d for d in dtypes if d in order), key=order.index, default="float32")


def _float_errors(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    """Absolute errors; equal infinities and NaN at the same place are no error, others infinite."""
    expected, got = expected.astype("float64"), got.astype("float64")
    finite = np.isfinite(expected) & np.isfinite(got)
    same = (expected == got) | (np.isnan(expected) & np.isnan(got))
    with np.errstate(invalid="ignore"):
        difference = np.abs(got - expected)
    return np.where(finite, difference, np.where(same, 0.0, np.inf))


def _exact_errors(expected: np.ndarray, got: np.ndarray) -> np.ndarray:
    if expected.dtype.kind in "iu":
        return np.abs(got.astype("float64") - expected.astype("float64")) + (got != expected)
    return (got != expected).astype("float64")


def magnitude_of(values: np.ndarray) -> float:
    """The largest magnitude among the numbers of an array, 0 if there are none."""
    magnitudes = np.abs(values.astype("float64"))
    return float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0))


def _ratio(error: float, magnitude: float) -> float:
    if error == 0:
        return 0.0
    return error / magnitude if magnitude else np.inf


def _argmax_agreement(expected: np.ndarray, got: np.ndarray, allowed: float) -> float | None:
    if expected.ndim < 2 or expected.shape[-1] < 2:
        return None
    expected, got = (np.nan_to_num(values.astype("float64")) for values in (expected, got))
    chosen = np.take_along_axis(expected, got.argmax(-1)[..., np.newaxis], -1)[..., 0]
    # Two elements closer than the tolerance are a tie: either may come first.
    return float((chosen >= expected.max(-1) - allowed).mean())
