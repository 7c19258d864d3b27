"""Runs samples on both sides, Keras and onnxruntime, and keeps what came of them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_blocks.contract.sampling.samples import Sample
from keras_blocks.export.results.checks import Check, Difference, Skipped
from keras_blocks.export.results.comparison import (
    TOLERANCES,
    Comparison,
    Tolerance,
    compare,
    compute_dtype,
    is_floating,
    magnitude_of,
)
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.verification.accepted_values import ValueSearch
from keras_blocks.export.verification.effort import Budget
from keras_blocks.export.verification.exact_values import exact_outputs
from keras_blocks.export.verification.keras_side import KerasRunner
from keras_blocks.export.verification.larger_batches import outputs_in_larger_batches
from keras_blocks.export.verification.rounding_noise import rounding_noise
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

MOST_KEPT_ROWS = 64  # of the largest: a vocabulary is drawn in many short rows
KEPT = 3  # outcomes whose arrays are kept, to run them once more at the end


@dataclass(frozen=True)
class Outcome:
    """What both sides gave for a sample, and how long they took; no `got` where ONNX failed."""

    sample: Sample
    expected: list[np.ndarray]
    got: list[np.ndarray] | None
    checks: list[Check]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the two are equal."""
        return all(check.ok for check in self.checks)


class VerificationRun:
    """Runs samples on both sides and keeps what came of them.

    `first` and `largest` are outcomes to go on from: the first few, and that with long rows;
    `tried` has each sample that was drawn, and whether the model took it; `finite` says of each
    output that had values, by its place, whether one of them was a number, `magnitudes` of each of
    floats how large it was.

    `not_numbers` has a line for each way in which NaN and infinities differ, `sides` one for each
    branch or size that the data decides.

    Args:
        model: the Keras model.
        signature: its signature.
        rtol, atol: floats; None chooses by dtype. A tolerance that was asked for is kept to; the
            usual one gives way to the model's own rounding noise.
        budget: once it is spent, further samples are left out.
    """

    def __init__(
        self,
        model: keras.Model,
        signature: Signature,
        rtol: float | None = None,
        atol: float | None = None,
        budget: Budget | None = None,
    ):
        self.keras = KerasRunner(model, signature, signature.traced)
        self.values = ValueSearch(self.keras)
        self.outputs = signature.contract.flat_outputs()
        usual = TOLERANCES[compute_dtype(model)]
        self.tolerance = usual
        if rtol is not None or atol is not None:
            self.tolerance = Tolerance(
                usual.rtol if rtol is None else rtol, usual.atol if atol is None else atol, "given"
            )
        self.allow_noise = rtol is None and atol is None
        self.budget = budget or Budget()
        self.first: list[Outcome] = []
        self.largest: Outcome | None = None
        self.tried: list[tuple[Sample, bool]] = []
        self.finite: dict[int, bool] = {}
        self.magnitudes: dict[int, float] = {}
        self.checks: list[Check] = []
        self.skipped: list[Skipped] = []
        self.left_out: list[str] = []
        self.notes: list[str] = []
        self.not_numbers: list[str] = []
        self.sides: list[str] = []
        self.failed: Sample | None = None
        self.difference: Difference | None = None

    def untried(self, samples: Iterable[Sample]) -> list[Sample]:
        """Those of the samples that were not drawn before."""
        known = {sample.description for sample, _ in self.tried}
        return [sample for sample in samples if sample.description not in known]

    def run(self, onnx: OnnxRunner, samples: Iterable[Sample], eager_every: int = 2) -> None:
        """Compares the outputs on each sample; every so many Keras runs op by op."""
        for number, sample in enumerate(samples):
            if self.spent:
                self.left_out.append(sample.description)
                continue
            # A fault of tracing would be in the trace and in the file.
            eager = number % eager_every == 0
            try:
                self.add(self.examine(onnx, sample, eager))
            except SampleRejectedError as error:
                if not self._run_narrowed(onnx, sample, eager):
                    self.skipped.append(Skipped(sample.description, str(error)))
                    self.tried.append((sample, False))

    def _run_narrowed(self, onnx: OnnxRunner, sample: Sample, eager: bool) -> bool:
        """Compares on other integers of the same shapes, if the model takes any."""
        for other in self.values.narrowed(sample, seed=0):
            try:
                self.add(self.examine(onnx, other, eager))
                return True
            except SampleRejectedError:
                continue
        return False

    @property
    def spent(self) -> bool:
        """Whether the time is over, and something was compared in it."""
        return self.budget.over and bool(self.checks)

    def fail(self, sample: Sample, difference: Difference | None = None) -> None:
        """Remembers the first sample that went wrong, and why, where that is known."""
        if self.failed is None:
            self.failed, self.difference = sample, difference

    def add(self, outcome: Outcome) -> None:
        """Keeps the outcome."""
        if not outcome.ok:
            self.fail(outcome.sample)
        self.checks += outcome.checks
        self.tried.append((outcome.sample, True))
        for index, values in enumerate(outcome.expected):
            if values.size and not self.finite.get(index):
                self.finite[index] = bool(np.isfinite(values).any())
            if is_floating(values.dtype) and values.size:
                known = self.magnitudes.get(index, 0.0)
                self.magnitudes[index] = max(known, magnitude_of(values))
        if len(self.first) < KEPT:
            self.first.append(outcome)
        sample, largest = outcome.sample, self.largest
        few = sample.plan is None or len(sample.plan.lengths) <= MOST_KEPT_ROWS
        if sample.fixed and few and (largest is None or sample.elements > largest.sample.elements):
            self.largest = outcome

    def examine(self, onnx: OnnxRunner, sample: Sample, eager: bool) -> Outcome:
        """What both sides make of a sample.

        Raises:
            RefusedError: the model does not take it.
        """
        outcome = self.compare(onnx, sample, eager)
        if not eager and not outcome.ok:
            outcome = self.compare(onnx, sample, eager=True)
        if not outcome.ok and outcome.got is not None:
            outcome = self._in_larger_batch(onnx, outcome)
        if not outcome.ok and outcome.got is not None and self.allow_noise:
            outcome = self._beside_the_exact(onnx, outcome)
        if not outcome.ok and self.failed is None:
            self.keras.refuse_shapes(sample.feed)
        return outcome

    def _beside_the_exact(self, onnx: OnnxRunner, wrong: Outcome) -> Outcome:
        """The outcome, or where the file is right and Keras rounds, one that says so."""
        sample, side = wrong.sample, self.keras
        flat = [sample.feed[name] for name in side.names]
        exact = exact_outputs(side.signature, flat, wrong.expected)
        if exact is None or not self._traces_alike(sample):
            return wrong
        again = self.compare_with(onnx, sample, exact, wrong.seconds)
        if not again.ok:
            return wrong
        error = max(check.max_error for check in wrong.checks)
        self.notes.append(
            f"Keras rounds more than the file for {sample.description}: the two differ by "
            f"{error:.2g}, and the file gives what the model's graph gives in float64."
        )
        return again

    def _traces_alike(self, sample: Sample) -> bool:
        """Whether Keras's graph gives what its code gives; else no form of it is exact."""
        traced, eager = (self.keras.run(sample.feed, eager) for eager in (False, True))
        alike = self._compare_all(eager, traced, [0.0] * len(eager))
        return not any(result.problem for result in alike)

    def _in_larger_batch(self, onnx: OnnxRunner, wrong: Outcome) -> Outcome:
        """The outcome, or where Keras contradicts itself another that is right, which is noted."""
        sample = wrong.sample
        for size, expected in outputs_in_larger_batches(self.keras, sample.feed):
            again = self.compare_with(onnx, sample, expected, wrong.seconds)
            if again.ok:
                self.notes.append(
                    f"Keras contradicts itself: op by op it gives other values for "
                    f"{sample.description} than for the same rows in a batch of {size}. The file "
                    f"gives the latter. (In a batch as large as the channels, keras.ops.add takes "
                    f"a column for a bias.)"
                )
                return again
        return wrong

    def compare(self, onnx: OnnxRunner, sample: Sample, eager: bool) -> Outcome:
        """What both sides give for one sample; `eager` is how Keras runs it."""
        started = time.perf_counter()
        expected = self.keras.run(sample.feed, eager)
        return self.compare_with(onnx, sample, expected, time.perf_counter() - started)

    def compare_with(
        self, onnx: OnnxRunner, sample: Sample, expected: list[np.ndarray], seconds: float = 0.0
    ) -> Outcome:
        """What ONNX gives beside what Keras gave, in so many seconds."""
        started = time.perf_counter()
        try:
            found = onnx.run(sample.feed)
        except SampleRejectedError as error:
            reason = f"onnxruntime fails where Keras does not: {error}"
            wrong = {"problem": reason, "max_error": np.inf}
            checks = [self.check(i, sample, value, **wrong) for i, value in enumerate(expected)]
            return Outcome(sample, expected, None, checks, seconds)
        got = [found[tensor.name] for tensor in self.outputs]
        seconds += time.perf_counter() - started
        compared = self._compare_all(expected, got, [0.0] * len(expected))
        near = any(result.problem and np.isfinite(result.max_error) for result in compared)
        if near and self.allow_noise:
            side = self.keras
            flat = [sample.feed[name] for name in side.names]
            noise = rounding_noise(side.model, side.signature, flat, expected)
            compared = self._compare_all(expected, got, noise)
        checks = [
            self.check(i, sample, value, **vars(result))
            for i, (value, result) in enumerate(zip(expected, compared, strict=True))
        ]
        return Outcome(sample, expected, got, checks, seconds)

    def check(self, index: int, sample: Sample, expected: np.ndarray, **found: Any) -> Check:
        """The check of one output on a sample."""
        return Check(
            sample=sample.description,
            input_shapes=sample.shapes,
            output=self.outputs[index].name,
            shape=expected.shape,
            dtype=str(expected.dtype),
            fixed=sample.fixed,
            **found,
        )

    def _compare_all(
        self, expected: list[np.ndarray], got: list[np.ndarray], noise: list[float]
    ) -> list[Comparison]:
        return [
            compare(want, have, replace(self.tolerance, atol=self.tolerance.atol + extra))
            for want, have, extra in zip(expected, got, noise, strict=True)
        ]
