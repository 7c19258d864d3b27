"""What one comparison of Keras and ONNX found: of an output on a sample, or of a layer's output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

pass


@dataclass(frozen=True)
class Worst:
    """The element that is furthest off: its index, ONNX's value and Keras's value."""

    index: tuple[int, ...]
    got: Any
    expected: Any

    def __str__(self) -> str:
        got, expected = value_text(self.got), value_text(self.expected)
        return f"at {list(self.index)} got {got}, expected {expected}"


@dataclass(frozen=True)
class Check:
    """One output on one sample.

    Args:
        sample: str, the sample in words.
        input_shapes: the shapes of the flat inputs by name.
        output: str, the name of the flat output.
        shape, dtype: what Keras gave.
        max_error, mean_error: of the absolute difference.
        relative_error: max_error by the largest magnitude that Keras gave.
        tolerance: float, the largest absolute error that passes.
        argmax_agreement: the share of vectors whose largest element is the same, ties left out;
            None where the output is no vector of several floats.
        worst: the element with the largest error, or None if all are equal.
        problem: str, what is wrong, or None.
        again: bool, True where a sample was run once more, or by several threads.
        fixed: bool, False where the time decided about the sample: another proof may have others.
    """

    sample: str
    input_shapes: dict[str, tuple[int, ...]]
    output: str
    shape: tuple[int, ...]
    dtype: str
    max_error: float = 0.0
    mean_error: float = 0.0
    relative_error: float = 0.0
    tolerance: float = 0.0
    argmax_agreement: float | None = None
    worst: Worst | None = None
    problem: str | None = None
    again: bool = False
    fixed: bool = True

    @property
    def ok(self) -> bool:
        """Whether the file gave what Keras gave."""
        return self.problem is None


@dataclass(frozen=True)
class Skipped:
    """A sample that Keras itself refuses, and why."""

    sample: str
    reason: str


@dataclass(frozen=True)
class Difference:
    """The first place where the file departs from the model; `layer` is None where unknown."""

    message: str
    layer: str | None = None


@dataclass(frozen=True)
class LayerCheck:
    """What one call of a layer gave, of its several tensors the one that is furthest off.

    Args:
        layer: str, its name.
        kind: str, its class.
        call: int, from 1: layers may be called several times.
        shape: what Keras gave.
        max_error, relative_error, tolerance, worst, problem: as of `Check`.
    """

    layer: str
    kind: str
    call: int
    shape: tuple[int, ...]
    max_error: float = 0.0
    relative_error: float = 0.0
    tolerance: float = 0.0
    worst: Worst | None = None
    problem: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the layer gave in ONNX what it gave in Keras."""
        return self.problem is None

    @property
    def name(self) -> str:
        """The layer, with the number of the call from the second on."""
        return self.layer if self.call == 1 else f"{self.layer}, call {self.call}"


def value_text(value: Any) -> str:
    """One element of an output."""
    return f"{value:.8g}" if isinstance(value, float) else str(value)
