"""Two ONNX files on the same inputs: how far their outputs are apart, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_blocks.contract import Contract
from keras_blocks.contract.feeds import Feed, as_feeds
from keras_blocks.contract.sampling.plans import LARGER_PLANS, Plan
from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.errors import ContractError, ExportError
from keras_blocks.export.files.accuracy import accuracy, by_output
from keras_blocks.export.files.pairing import Pair, paired
from keras_blocks.export.files.tally import Tally
from keras_blocks.export.files.timing import medians
from keras_blocks.export.onnx_io.graphs import op_counts
from keras_blocks.export.onnx_io.reading import load, opened
from keras_blocks.export.progress import tracked
from keras_blocks.export.reports.file_report import FileComparison
from keras_blocks.export.results.comparison import Tolerance
from keras_blocks.export.results.files import FileFacts
from keras_blocks.runtime.external_data import count_bytes
from keras_blocks.runtime.file_contract import file_contract
from keras_blocks.runtime.runner import SampleRejectedError

TIMED_SIZE = 32  # steps of every free dim of the inputs that are timed
TIMED_BATCHES = (1, 32)
LOADS = 7


def compare_files(
    original: str | Path,
    other: str | Path,
    *,
    inputs: Any = None,
    labels: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    timed: bool = True,
    seed: int = 0,
    verbose: bool | None = None,
) -> FileComparison:
    """How far two ONNX files are apart on the same inputs, and what each costs.

    An output is the same where

        |other - original| <= atol + rtol * max|original|

    Inputs and outputs belong together by name, or in their order where the names differ. Neither
    file needs to be one that we exported.

    Args:
        original, other: str, the ONNX files.
        inputs: what both run on: an array, for files of one input; a dict of arrays by input,
            where a ragged input is a list of rows; an iterable of these; or the name of an `.npz`
            file. None draws samples from the contract of the file, or from its signature.
        labels: what the outputs of the given inputs should be, which gives the accuracy of both:
            an array for the first output, or a dict by output. Class numbers, or as many
            values as the output has.
        rtol: float, the allowed error relative to the largest magnitude of an output; None
            chooses by dtype.
        atol: float, the allowed absolute error; None chooses by dtype.
        timed: bool, whether to time loading and runs.
        seed: int, of the samples.
        verbose: bool, False shows no progress bar; None shows one beyond a second.
    Returns:
        A `FileComparison`; `ok` tells, printed it shows both files beside each other.
    Raises:
        FileNotFoundError: a file does not exist.
        ModelLoadError: a file is no ONNX file, or onnxruntime does not load it.
        ContractError: the given inputs or labels do not fit.
        ExportError: no inputs could be drawn that the original takes.

    Example:

    >>> import keras, keras_blocks as kb
    >>> from keras_blocks.export import compare_files, export_onnx
    >>> model = keras.Sequential([keras.Input((4,)), kb.Vanilla(2)])
    >>> for opset in (17, 18):
    ...     result = export_onnx(model, f"{opset}.onnx", opset_version=opset)
    >>> compare_files("17.onnx", "18.onnx").ok
    True
    """
    first, second = _Opened(Path(original)), _Opened(Path(other))
    contract = file_contract(first.side)
    if labels is not None and inputs is None:
        raise ContractError(
            "labels were given without inputs; give the inputs (--inputs) they belong to"
        )
    given = None if inputs is None else as_feeds(contract, inputs, "inputs")
    pair, problem, notes = paired(first.side, second.side)
    if pair is None:
        return FileComparison(first.facts, second.facts, problem=problem)
    tolerance = None if rtol is atol is None else Tolerance(rtol or 0.0, atol or 0.0)
    trial = _Trial(pair, tolerance)
    if given is None:
        trial.draw(contract, seed, verbose)
    else:
        trial.run_given(given, labels, verbose)
    facts = [
        replace(opened.facts, accuracy=share)
        for opened, share in zip((first, second), trial.accuracies(), strict=True)
    ]
    if timed and trial.problem is None:
        feeds = _timed_feeds(pair, contract, seed) if given is None else _first(contract, given)
        facts = _timed(facts, pair, feeds)
    return FileComparison(
        original=facts[0],
        other=facts[1],
        outputs=tuple(tally.difference() for tally in trial.tallies if trial.samples),
        samples=trial.samples,
        skipped=tuple(dict.fromkeys(trial.skipped)),
        problem=trial.problem,
        notes=tuple(notes),
        seed=seed if given is None else None,
    )


class _Opened:
    """A file under onnxruntime, and what is known without running it."""

    def __init__(self, path: Path):
        model = load(path, weights=False)
        self.side = opened(path)
        self.facts = FileFacts(
            file=str(path),
            size_bytes=count_bytes(path),
            op_counts=op_counts(model),
            opset={entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        )


class _Trial:
    """Runs a pair on samples and keeps what was found."""

    def __init__(self, pair: Pair, tolerance: Tolerance | None):
        self.pair = pair
        self.tallies = [Tally(name, tolerance) for name in pair.outputs]
        self.labels: dict[str, np.ndarray] = {}
        self.labelled: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
        self.samples = 0
        self.skipped: list[str] = []
        self.problem: str | None = None

    def draw(self, contract: Contract, seed: int, verbose: bool | None) -> None:
        """Runs both on samples of the contract, larger ones too if the usual are too small."""
        try:
            feeds = [sample.feed for sample in draw_samples(contract, seed)]
            self._run(feeds, verbose)
            if len(self.skipped) > len(feeds) // 2:
                self._run([s.feed for s in draw_samples(contract, seed, LARGER_PLANS)], verbose)
        except ExportError as error:
            raise ExportError(
                f"no inputs can be drawn ({error}); give inputs (--inputs)"
            ) from error
        if not self.samples and self.problem is None:
            reason = self.skipped[0] if self.skipped else "none is small enough"
            raise ExportError(f"nothing was compared ({reason}); give inputs (--inputs)")

    def run_given(self, feeds: Sequence[Feed], labels: Any, verbose: bool | None) -> None:
        """Runs both on the user's inputs."""
        if labels is not None:
            self.labels = by_output(labels, list(self.pair.outputs))
            self.labelled = {name: ([], []) for name in self.labels}
        self._run(feeds, verbose)
        if self.skipped:
            raise ContractError(f"inputs: {self.skipped[0]}")

    def accuracies(self) -> list[dict[str, float]]:
        """Of the original and of the other file, by output; none without labels."""
        if self.problem is not None:
            return [{}, {}]
        return [
            {
                name: accuracy(np.concatenate(self.labelled[name][side]), labels, name)
                for name, labels in self.labels.items()
            }
            for side in (0, 1)
        ]

    def _run(self, feeds: Sequence[Feed], verbose: bool | None) -> None:
        for feed in tracked(feeds, "comparing", verbose):
            try:
                want = self.pair.original.run(feed)
            except SampleRejectedError as error:
                self.skipped.append(f"the original refuses {_shapes(feed)}: {error}")
                continue
            try:
                have = self.pair.run_other(feed)
            except SampleRejectedError as error:
                self.problem = f"the other fails on {_shapes(feed)}: {error}"
                return
            self.samples += 1
            for tally in self.tallies:
                tally.add(want[tally.name], have[tally.name])
            for name, kept in self.labelled.items():
                kept[0].append(want[name])
                kept[1].append(have[name])


def _shapes(feed: Feed) -> str:
    return ", ".join(f"{name} {list(value.shape)}" for name, value in feed.items())


def _first(contract: Contract, given: Sequence[Feed]) -> dict[str, Feed]:
    """The first batch of the given inputs, which is what is timed, by the rows that it has."""
    spec, feed = contract.inputs[0], given[0]
    shape = (len(feed[spec.row_splits_name]) - 1,) if spec.ragged else feed[spec.name].shape
    return {f"{shape[0]} given rows" if shape else "given inputs": feed}


def _timed_feeds(pair: Pair, contract: Contract, seed: int) -> dict[str, Feed]:
    """Inputs to time runs with, by the rows that they have."""
    feeds: dict[str, Feed] = {}
    for rows in TIMED_BATCHES:
        for size in (TIMED_SIZE, *(plan.size for plan in LARGER_PLANS)):
            for sample in draw_samples(contract, seed, (Plan((size,) * rows, size),)):
                label = f"batch {rows if sample.plan is None else len(sample.plan.lengths)}"
                with suppress(SampleRejectedError):
                    pair.original.run(sample.feed)
                    feeds.setdefault(label, sample.feed)
            if len(feeds) == TIMED_BATCHES.index(rows) + 1:
                break
    return feeds


def _timed(facts: list[FileFacts], pair: Pair, feeds: Mapping[str, Feed]) -> list[FileFacts]:
    loads = medians([partial(opened, Path(one.file)) for one in facts], LOADS)
    runs = {
        label: medians(
            [partial(pair.original.run, feed), partial(pair.other.run, pair.other_feed(feed))]
        )
        for label, feed in feeds.items()
    }
    return [
        replace(
            one,
            load_seconds=loads[side],
            run_seconds={label: taken[side] for label, taken in runs.items()},
        )
        for side, one in enumerate(facts)
    ]
