"""What is known of files that were compared or changed, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class FileFacts:
    """One of two files.

    Args:
        file: str, its name.
        size_bytes: int, with its external data.
        op_counts: how many nodes of each op it has, those in loops and branches included.
        opset: domain -> version.
        load_seconds: float, the median time that onnxruntime takes to load it; None if not timed.
        run_seconds: inputs in words -> the median time of a run, on one thread.
        accuracy: output -> share of the labels that it meets; empty without labels.
    """

    file: str
    size_bytes: int
    op_counts: dict[str, int]
    opset: dict[str, int]
    load_seconds: float | None = None
    run_seconds: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return sum(self.op_counts.values())


@dataclass(frozen=True)
class OutputDifference:
    """How far an output of the second file is from the first, over all samples.

    Args:
        output: str, its name in the first file.
        dtype: str, there.
        elements: int, how many were compared.
        max_error, mean_error: of the absolute difference.
        relative_error: max_error by the largest magnitude in the first file.
        argmax_agreement: the share of vectors whose largest element is the same, ties left out;
            None where the output is no vector of several floats.
        problem: str, why it counts as another result, or None.
    """

    output: str
    dtype: str
    elements: int = 0
    max_error: float = 0.0
    mean_error: float = 0.0
    relative_error: float = 0.0
    argmax_agreement: float | None = None
    problem: str | None = None
