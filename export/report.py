"""What an export and its proof found: a table for people, JSON for machines.

The classes here only hold and present; `parity` and `convert` fill them.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keras_blocks.contract import Contract
from keras_blocks.errors import ParityError
from keras_blocks.export.tables import (
    checks_table,
    render,
    signature_table,
    size_text,
    skipped_texts,
    value_text,
)


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
class ParityReport:
    """The proof, or what disproves it.

    Args:
        filepath: str, the ONNX file.
        model: str, the name of the Keras model.
        seed: int, gives the same samples again; None for inputs that the caller gave.
        checks: one per sample and output.
        skipped: the samples that Keras itself refused.
        problem: str, why the file could not be compared at all, or None.
        first_difference: where the difference starts, or None.
        versions: of the packages that took part.
        seconds: float, how long the proof took.
    """

    filepath: str
    model: str
    seed: int | None = None
    checks: tuple[Check, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    problem: str | None = None
    first_difference: Difference | None = None
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether something was compared, and all of it was equal."""
        return self.problem is None and bool(self.checks) and all(c.ok for c in self.checks)

    @property
    def samples(self) -> int:
        """How many samples were compared."""
        return len({check.sample for check in self.checks})

    @property
    def max_error(self) -> float:
        """The largest absolute error of all checks."""
        return max((check.max_error for check in self.checks), default=0.0)

    def failures(self) -> list[Check]:
        """The checks that differ; small samples come first, and are the easiest to look at."""
        return [check for check in self.checks if not check.ok]

    def raise_if_wrong(self) -> None:
        """Raises `ParityError` if the file does not compute what the model computes."""
        if not self.ok:
            raise ParityError(self.failure_text(), report=self)

    def failure_text(self) -> str:
        """What is wrong and where, in a few lines."""
        lines = [f"{self.filepath} does not compute what the Keras model '{self.model}' computes."]
        if self.problem is not None:
            lines.append(self.problem)
        wrong = self.failures()
        if wrong:
            first = wrong[0]
            shapes = ", ".join(f"{n} {list(s)}" for n, s in first.input_shapes.items())
            lines.append(f"Output '{first.output}' for inputs {shapes} ({first.sample}):")
            lines.append(f"{first.problem}.")
            lines.append(f"{len(wrong)} of {len(self.checks)} checks differ.")
        if self.first_difference is not None:
            lines.append(self.first_difference.message)
        return "\n".join(lines)

    def summary(self) -> dict[str, Any]:
        """The short form that travels in the file's metadata; the same proof, the same text."""
        return {
            "ok": self.ok,
            "samples": self.samples,
            "skipped": len(self.skipped),
            "seed": self.seed,
            "max_error": _finite(float(f"{self.max_error:.2g}")),
            "versions": self.versions,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types; infinities and NaN as text, for JSON has none."""
        body = {"ok": self.ok, "samples": self.samples, "max_error": self.max_error}
        return _finite({**body, **asdict(self)})

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def save(self, filepath: str | Path) -> Path:
        """Writes `to_json` to a `.json` file."""
        return _save_json(self.to_json(), filepath)

    def __str__(self) -> str:
        if self.ok:
            verdict = (
                f"{self.filepath} equals the Keras model '{self.model}': {self.samples} samples, "
                f"worst error {self.max_error:.2g}"
            )
            if self.seed is not None:
                verdict += f" (seed {self.seed})"
        else:
            verdict = self.failure_text()
        parts: list[Any] = [verdict]
        if self.checks:
            parts.append(checks_table(self.checks))
        parts.extend(skipped_texts(self.skipped))
        return render(parts)


@dataclass(frozen=True)
class ExportResult:
    """What `export_onnx` made.

    Args:
        filepath: str, the ONNX file.
        contract: its inputs and outputs.
        opset_version: int.
        op_counts: how many nodes of each ONNX op it has, those in loops included.
        size_bytes: int.
        parity: the proof, or None if none was asked for.
    """

    filepath: str
    contract: Contract
    opset_version: int
    op_counts: dict[str, int]
    size_bytes: int
    parity: ParityReport | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types."""
        body = asdict(self)
        body["contract"] = json.loads(self.contract.to_json())
        body["parity"] = None if self.parity is None else self.parity.to_dict()
        return body

    def to_json(self) -> str:
        """`to_dict` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def save(self, filepath: str | Path) -> Path:
        """Writes `to_json` to a `.json` file."""
        return _save_json(self.to_json(), filepath)

    def __str__(self) -> str:
        nodes = sum(self.op_counts.values())
        ordered = sorted(self.op_counts.items(), key=lambda item: (-item[1], item[0]))
        parts: list[Any] = [
            f"{self.filepath}: {size_text(self.size_bytes)}, opset {self.opset_version}, "
            f"{nodes} nodes",
            signature_table(self.contract),
            "ops: " + ", ".join(f"{op} {count}" for op, count in ordered),
            str(self.parity) if self.parity else "not proven: the proof was switched off",
        ]
        return render(parts)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _save_json(text: str, filepath: str | Path) -> Path:
    path = Path(filepath)
    if path.suffix != ".json":
        raise ValueError(f"A report is saved as .json. Received: filepath={str(filepath)!r}")
    path.write_text(text + "\n", encoding="utf-8")
    return path
