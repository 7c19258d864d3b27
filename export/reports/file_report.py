"""What a comparison of two ONNX files found, and what a change to one won and cost.

The classes here only hold and present; `file_comparison` and the changes fill them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from keras_blocks.contract import PROCESSORS
from keras_blocks.export.reports.file_html import comparison_page
from keras_blocks.export.reports.file_rows import (
    difference_rows,
    file_rows,
    names_of,
    op_rows,
    table,
    verdict_on_speed,
)
from keras_blocks.export.reports.json_report import JsonReport, finite
from keras_blocks.export.reports.text import render
from keras_blocks.export.results.files import FileFacts, OutputDifference


@dataclass(frozen=True)
class FileComparison(JsonReport):
    """Two ONNX files on the same inputs.

    Args:
        original, other: the files.
        outputs: one for each output.
        samples: int, on how many inputs both ran.
        skipped: the inputs that the first file refused, and why.
        problem: str, why the files could not be compared, or None.
        notes: what else there is to know.
        seed: int, gives the same samples again; None for inputs that the caller gave.
    """

    original: FileFacts
    other: FileFacts
    outputs: tuple[OutputDifference, ...] = ()
    samples: int = 0
    skipped: tuple[str, ...] = ()
    problem: str | None = None
    notes: tuple[str, ...] = ()
    seed: int | None = None

    @property
    def ok(self) -> bool:
        """Whether both gave the same, within what rounding explains."""
        return self.problem is None and not any(output.problem for output in self.outputs)

    @property
    def max_error(self) -> float:
        """The largest absolute error of all outputs."""
        return max((output.max_error for output in self.outputs), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types; infinities and NaN as text, for JSON has none."""
        return {"ok": self.ok, "max_error": finite(self.max_error), **super().to_dict()}

    def verdict(self) -> str:
        """In a sentence or two, whether they give the same."""
        names = f"{self.original.file} and {self.other.file}"
        wrong = [f"{output.output}: {output.problem}" for output in self.outputs if output.problem]
        if self.problem is not None:
            return f"{names} cannot be compared: {self.problem}"
        if wrong:
            return "\n".join([f"{names} DIFFER.", *wrong])
        error = f"worst error {self.max_error:.2g}" if self.max_error else "no error at all"
        return f"{names} agree: {self.samples} samples, {error}."

    def to_html(self) -> str:
        """One page, which needs no other file."""
        title = f"{self.original.file} and {self.other.file}"
        return comparison_page(self, title, self.verdict(), self.remarks())

    def __str__(self) -> str:
        return render([self.verdict(), "", *self.tables(), *self.remarks()])

    def tables(self) -> list[Any]:
        """The files, their outputs and their ops beside each other."""
        names = names_of(self.original, self.other)
        parts: list[Any] = [table(("", *names, "ratio"), file_rows(self.original, self.other)), ""]
        if self.outputs:
            headings = ("output", "max error", "mean error", "relative", "same argmax", "")
            parts += [table(headings, difference_rows(self.outputs)), ""]
        if self.original.op_counts != self.other.op_counts:
            parts += [table(("op", *names), op_rows(self.original, self.other)), ""]
        return parts

    def remarks(self) -> list[str]:
        """How it was measured, and what else there is to know."""
        texts = [f"{text}." for text in (*self.skipped, *self.notes)]
        if self.problem is None:
            drawn = f"drawn inputs (seed {self.seed})"
            inputs = "batches of the given inputs" if self.seed is None else drawn
            how = f"Errors: over {self.samples} {inputs}."
            timed = " Times: medians in turns, one thread." if self.original.run_seconds else ""
            texts.insert(0, how + timed)
        return texts


@dataclass(frozen=True)
class ChangeReport(JsonReport):
    """A changed ONNX file beside the one it was made of.

    Args:
        change: str, what was done.
        comparison: the files beside each other.
        changed: op -> how many nodes of it were changed.
        processors: str, which its int8 products are right on, a key of `contract.PROCESSORS`;
            None if it has no such products.
        notes: what was left as it was and why, and what else there is to know.
    """

    change: str
    comparison: FileComparison
    changed: dict[str, int] = field(default_factory=dict)
    processors: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def filepath(self) -> str:
        """The file that was written."""
        return self.comparison.other.file

    @property
    def size_ratio(self) -> float:
        """The new size by the old one."""
        return self.comparison.other.size_bytes / self.comparison.original.size_bytes

    @property
    def speed_ratios(self) -> dict[str, float]:
        """The new time of a run by the old one, by the inputs in words."""
        before, after = self.comparison.original.run_seconds, self.comparison.other.run_seconds
        return {label: after[label] / before[label] for label in before if label in after}

    @property
    def max_error(self) -> float:
        """The largest absolute error of all outputs."""
        return self.comparison.max_error

    def to_dict(self) -> dict[str, Any]:
        """Everything, in JSON's types; infinities and NaN as text, for JSON has none."""
        facts = {
            "filepath": self.filepath,
            "verdict": self.verdict(),
            "size_ratio": self.size_ratio,
            "speed_ratios": self.speed_ratios,
            "max_error": finite(self.max_error),
        }
        return {**facts, **super().to_dict()}

    def verdict(self) -> str:
        """In a sentence, whether it was worth it."""
        size = f"{self.size_ratio:.2f} times the size"
        if not self.changed and self.size_ratio > 0.99:
            return f"Nothing was won: {size}, and nothing in it was changed."
        return f"{size[0].upper()}{size[1:]}; {verdict_on_speed(self.speed_ratios)}."

    def to_html(self) -> str:
        """One page, which needs no other file."""
        title = f"{self.filepath}: {self.change}"
        return comparison_page(self.comparison, title, self.verdict(), self.remarks())

    def __str__(self) -> str:
        head = [f"{self.filepath}: {self.change}", self.verdict(), ""]
        return render([*head, *self.comparison.tables(), *self.remarks()])

    def remarks(self) -> list[str]:
        """How it was measured, what was changed, where that is right, and what was left."""
        nodes = ", ".join(f"{count} {op}" for op, count in self.changed.items())
        texts = [*self.comparison.remarks(), f"Changed: {nodes or 'nothing'}."]
        if self.processors is not None:
            texts.append(f"Processors: {PROCESSORS[self.processors]}.")
        return [*texts, *(f"Note: {text}." for text in self.notes)]
