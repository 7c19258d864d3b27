"""The differences of one output over many samples."""

from __future__ import annotations

import numpy as np

from keras_blocks.export.results.comparison import (
    EXACT,
    TOLERANCES,
    Tolerance,
    compare,
    is_floating,
)
from keras_blocks.export.results.files import OutputDifference


class Tally:
    """The differences of one output so far."""

    def __init__(self, name: str, tolerance: Tolerance | None):
        self.name = name
        self.tolerance = tolerance
        self.dtype = ""
        self.elements = self.vectors = 0
        self.max_error = self.error_sum = self.magnitude = self.agreeing = 0.0
        self.problem: str | None = None

    def add(self, want: np.ndarray, have: np.ndarray) -> None:
        """Compares the output on one sample."""
        if is_floating(want.dtype) and is_floating(have.dtype):
            tolerance = self.tolerance or _usual_tolerance(want.dtype, have.dtype)
            have = have.astype(want.dtype)
        else:
            tolerance = EXACT
        if (want.shape, want.dtype) != (have.shape, have.dtype):
            self.max_error = np.inf
            self.problem = self.problem or (
                f"{have.dtype} {list(have.shape)} where the original gives "
                f"{want.dtype} {list(want.shape)}"
            )
            return
        found = compare(want, have, tolerance)
        self.dtype = str(want.dtype)
        self.elements += want.size
        self.max_error = max(self.max_error, found.max_error)
        self.error_sum += found.mean_error * want.size
        if is_floating(want.dtype) and want.size:
            finite = np.abs(want[np.isfinite(want)].astype("float64"))
            self.magnitude = max(self.magnitude, float(finite.max(initial=0.0)))
        if found.argmax_agreement is not None:
            vectors = want.size // want.shape[-1]
            self.vectors += vectors
            self.agreeing += found.argmax_agreement * vectors
        self.problem = self.problem or found.problem

    def difference(self) -> OutputDifference:
        """All of it."""
        relative = self.max_error and self.max_error / (self.magnitude or np.nan)
        return OutputDifference(
            output=self.name,
            dtype=self.dtype,
            elements=self.elements,
            max_error=self.max_error,
            mean_error=self.error_sum / self.elements if self.elements else 0.0,
            relative_error=float(np.nan_to_num(relative, nan=np.inf)),
            argmax_agreement=self.agreeing / self.vectors if self.vectors else None,
            problem=self.problem,
        )


def _usual_tolerance(*dtypes: np.dtype) -> Tolerance:
    """That of the coarsest dtype."""
    order = list(TOLERANCES)
    return TOLERANCES[max((dtype.name for dtype in dtypes), key=order.index)]
