"""The same inputs once more: after others in one session, and by several threads.

A kernel that does not write all of its output gives what was in memory before; one whose threads
write to the same place loses what another wrote, now and then, and only where there is so much to
do that it is shared out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.sampling.plans import crowd
from keras_blocks.contract.sampling.samples import Sample, draw_samples
from keras_blocks.export.results.checks import Difference
from keras_blocks.export.results.comparison import compare, is_floating
from keras_blocks.export.verification.comparisons import Outcome, VerificationRun
from keras_blocks.export.verification.effort import Level
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError


@dataclass(frozen=True)
class Race:
    """A sample on which so many threads now and then give something else than one does."""

    sample: Sample
    threads: int


GROWTH = 4  # from one number of rows to the next
FEWEST_ROWS, MOST_ROWS = 32, 2**17
MOST_NUMBERS = 2**23  # in the outputs, which are compared as float64


UNSTEADY = Difference(
    "The same inputs give other outputs after others were run: the file draws random numbers, "
    "keeps a state, or gives memory that it never wrote."
)


def run_again(proof: VerificationRun, onnx: OnnxRunner) -> bool:
    """Whether the first samples give the same once more, now that the session has seen others."""
    steady = True
    _disturb(proof, onnx)
    for before in proof.first:
        if before.got is None:
            continue
        sample = Sample(f"{before.sample.description}, once more", before.sample.feed)
        try:
            found = onnx.run(sample.feed)
        except SampleRejectedError as error:
            problem = f"run once more, onnxruntime fails: {error}"
            proof.checks.append(
                proof.check(0, sample, before.got[0], problem=problem, max_error=np.inf, again=True)
            )
            proof.fail(sample)
            return False
        for index, first in enumerate(before.got):
            result = compare(first, found[proof.outputs[index].name], proof.tolerance)
            if result.problem is not None:
                result = replace(
                    result, problem=f"run once more, the file gives other values: {result.problem}"
                )
                proof.fail(sample)
                steady = False
            proof.checks.append(proof.check(index, sample, first, **vars(result), again=True))
    return steady


def _disturb(proof: VerificationRun, onnx: OnnxRunner) -> None:
    """Runs floats of the other sign, for what is in memory to be other than it was."""
    for before in proof.first:
        feed = before.sample.feed
        other = {n: -value if is_floating(value.dtype) else value for n, value in feed.items()}
        with suppress(SampleRejectedError):
            onnx.run(other)


def run_with_threads(
    proof: VerificationRun, filepath: Path, contract: Contract, level: Level, seed: int
) -> Race | None:
    """Runs as many rows as the time allows, often, in sessions of several threads.

    Returns:
        What went wrong with several threads and is right with one, or None.
    """
    if proof.largest is None or not level.threads or proof.spent:
        return None
    start = proof.budget.spent
    seconds = min(start * level.share + level.seconds, proof.budget.end - start)
    side = OnnxRunner(filepath, level.threads[0])
    # Half of the time to find out how many rows fit, the rest to run them.
    grown = list(_growing(proof, side, contract, seed, start + seconds / 2))
    for outcome in grown[1:-1]:
        proof.add(outcome)
    for number, threads in enumerate(level.threads):
        end = start + seconds * (1 + (number + 1) / len(level.threads)) / 2
        side, outcomes = OnnxRunner(filepath, threads), grown[-1:]
        while len(outcomes) <= level.repeats and (len(outcomes) < 2 or proof.budget.spent < end):
            again = proof.compare_with(side, grown[-1].sample, grown[-1].expected)
            outcomes.append(replace(again, got=None))
        race = _judge(proof, filepath, outcomes, threads)
        if race is not None:
            return race
    return None


def _growing(
    proof: VerificationRun, side: OnnxRunner, contract: Contract, seed: int, end: float
) -> Iterator[Outcome]:
    """Outcomes on more and more rows, until one is wrong or the next would take too long."""
    assert proof.largest is not None
    largest = replace(proof.largest.sample, fixed=False)
    # Traced, as all of them are; the first run takes longer than those after it.
    _, outcome = (proof.examine(side, largest, eager=False) for _ in range(2))
    yield outcome
    plan, ragged = outcome.sample.plan, any(spec.ragged for spec in contract.inputs)
    rows = FEWEST_ROWS
    while plan is not None and outcome.ok and rows <= MOST_ROWS:
        for sample in draw_samples(contract, seed, (crowd(plan, rows, ragged),)):
            growth = sample.elements / max(outcome.sample.elements, 1)
            numbers = growth * sum(value.size for value in outcome.expected)
            if proof.budget.spent + outcome.seconds * growth > end or numbers > MOST_NUMBERS:
                return
            if growth > 1:
                try:
                    outcome = proof.examine(side, replace(sample, fixed=False), eager=False)
                except SampleRejectedError:
                    return
                yield outcome
        rows *= GROWTH


def _judge(
    proof: VerificationRun, filepath: Path, outcomes: list[Outcome], threads: int
) -> Race | None:
    """Adds the worst of these outcomes to the proof."""
    wrong = [outcome for outcome in outcomes if not outcome.ok]
    shown = wrong[0] if wrong else max(outcomes, key=_worst_error)
    several = f"{shown.sample.description}, {len(outcomes)} runs with {threads} threads"
    sample = replace(shown.sample, description=several)
    checks = [replace(check, sample=several, again=True) for check in shown.checks]
    racing = False
    if wrong:
        alone = proof.compare_with(OnnxRunner(filepath, 1), shown.sample, shown.expected)
        racing = alone.ok
    if racing:
        often = f"{len(wrong)} of {len(outcomes)} runs differ, with one thread all is right"
        checks = [c if c.ok else replace(c, problem=f"{often}: {c.problem}") for c in checks]
    proof.add(replace(shown, sample=sample, checks=checks))
    return Race(sample, threads) if racing else None


def _worst_error(outcome: Outcome) -> float:
    return float(np.max([check.max_error for check in outcome.checks], initial=0.0))
