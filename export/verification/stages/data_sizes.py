"""Branches and sizes that the data decides: inputs are looked for that take each side of them.

A file that selects, loops or branches may be right on all that is drawn at random, and fail where
nothing is selected, all, or a single one. The file itself says where: its `If`, `Loop`, `NonZero`,
`Compress` and `Unique` nodes are watched while simple inputs run through it (all zeros, all
negative, one that differs ...), and whatever reaches a new side is compared with Keras.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.sampling.samples import Feed, Sample
from keras_blocks.contract.sampling.values import bounds, kind_of
from keras_blocks.errors import ExportError
from keras_blocks.export.onnx_io.atomic_write import serialized
from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.export.results.checks import Check
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.runtime.runner import OnnxRunner, SampleRejectedError

_BRANCHES, _PICKS = frozenset(["If", "Loop"]), frozenset(["NonZero", "Compress", "Unique"])
_SIDES = {"If": ("true", "false"), "Loop": ("no round", "rounds")}
_COUNTS = ("nothing", "one", "some", "all")
_SECONDS, _SHARE = 0.1, 0.25  # the time for it, and the share of what the proof took before
_CONSTANTS = (1.0, -1.0, 10.0, -10.0, 1e3, -1e3)
_PAIRS = ((-1.0, 1.0), (1.0, -1.0), (0.0, 1.0), (1.0, 0.0))
_JITTER = 0.01  # of the numbers: equal ones make ties, and norms of nothing but rounding
_ROUNDING = 1e-2  # of the largest magnitude: what is so simple says nothing about smaller errors


@dataclass
class _Watched:
    """A node, the tensors that tell which of its sides ran, and those that did."""

    node: onnx.NodeProto
    tensors: tuple[str, ...]
    seen: set[str] = field(default_factory=set)

    def side(self, values: dict[str, np.ndarray]) -> str:
        """The side that a run took."""
        found = [values[name] for name in self.tensors]
        if self.node.op_type == "If":
            return "true" if found[0].all() else "false"
        if self.node.op_type == "Loop":
            return "rounds" if all(np.all(value > 0) for value in found) else "no round"
        picked = found[0].shape[-1] if self.node.op_type == "NonZero" else len(found[0])
        of = found[1].size
        if picked in (0, 1):
            return _COUNTS[picked]
        return "all" if picked == of else "some"

    @property
    def sides(self) -> tuple[str, ...]:
        """All of them."""
        return _SIDES.get(self.node.op_type, _COUNTS)

    def __str__(self) -> str:
        missed = [side for side in self.sides if side not in self.seen]
        ran = ", ".join(side for side in self.sides if side in self.seen)
        more = f"; {', '.join(missed)} was not reached" if missed else ""
        return f"'{self.node.name}' ({self.node.op_type}): {ran}{more}"


def run_data_sizes(
    proof: VerificationRun, filepath: Path, file: onnx.ModelProto, side: OnnxRunner, drawn: bool
) -> None:
    """Compares on inputs for each side of what the data decides; `proof.sides` tells what ran.

    Args:
        proof: has outcomes to go on from.
        filepath: the ONNX file.
        file: what is in it.
        side: the file under onnxruntime.
        drawn: bool, whether inputs may be drawn; else it is told what the given ones reached.
    """
    graph = file.graph
    inner = [node for nested in list(nested_graphs(graph))[1:] for node in nested.node]
    hidden = [node.name for node in inner if node.op_type in _PICKS | {"If"}]
    watched = _watched_in(graph)
    if not watched:
        return
    opened = _opened(filepath, graph, watched)
    if opened is None:
        proof.notes.append("Branches that the data decides were not looked at: the file is large.")
        return
    contract, start = proof.keras.signature.contract, proof.budget.spent
    known = [sample for sample, taken in proof.tried if taken]
    bases = proof.first if drawn else []
    more = (s for outcome in bases for s in _simple_inputs(contract, outcome.sample))
    for number, sample in enumerate(itertools.chain(known, more)):
        late = proof.budget.spent > start * (1 + _SHARE) + _SECONDS
        if proof.spent or late or all(len(one.seen) == len(one.sides) for one in watched):
            break
        _try(proof, side, opened, watched, sample, number < len(known))
        if proof.failed is not None:
            return
    proof.sides += [str(one) for one in watched]
    if hidden:
        proof.sides.append(f"{len(hidden)} within loops and branches were not looked at")


def _try(
    proof: VerificationRun,
    side: OnnxRunner,
    opened: OnnxRunner,
    watched: list[_Watched],
    sample: Sample,
    known: bool,
) -> None:
    """Runs a sample through the file, and beside Keras too if it reached another side."""
    tensors = [name for one in watched for name in one.tensors]
    names = [name for name in dict.fromkeys(tensors) if name not in sample.feed]
    try:
        values = {**sample.feed, **opened.run(sample.feed, names)}
        new = [one for one in watched if one.side(values) not in one.seen]
    except SampleRejectedError:
        values, new = {}, watched  # Keras has to say whether it is right to fail
    if not new:
        return
    try:
        if not known:
            outcome = proof.examine(side, sample, eager=True)
            if not outcome.ok and all(check.ok or _is_rounding(check) for check in outcome.checks):
                return
            proof.add(outcome)
    except SampleRejectedError:
        return
    for one in new if values and proof.failed is None else ():
        one.seen.add(one.side(values))


def _is_rounding(check: Check) -> bool:
    return np.dtype(check.dtype).kind == "f" and check.relative_error < _ROUNDING


def _watched_in(graph: onnx.GraphProto) -> list[_Watched]:
    constants = {weight.name for weight in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "If":
            tensors: tuple[str, ...] = (node.input[0],)
        elif node.op_type == "Loop":
            tensors = tuple(name for name in node.input[:2] if name and name not in constants)
        elif node.op_type == "Compress":
            tensors = (node.output[0], node.input[1])
        elif node.op_type in _PICKS:
            tensors = (node.output[0], node.input[0])
        else:
            continue
        if tensors and not constants.intersection(tensors):
            found.append(_Watched(node, tensors))
    return found


def _opened(filepath: Path, graph: onnx.GraphProto, watched: list[_Watched]) -> OnnxRunner | None:
    """The file with the watched tensors as outputs."""
    given = {value.name for value in graph.input}
    asked = {name for one in watched for name in one.tensors} - given
    try:
        model = onnx.load(str(filepath))
        shown = {value.name for value in model.graph.output}
        model.graph.output.extend(
            onnx.helper.make_empty_tensor_value_info(name) for name in sorted(asked - shown)
        )
        return OnnxRunner(serialized(model))
    except (SampleRejectedError, ExportError):
        return None


def _simple_inputs(contract: Contract, base: Sample) -> Iterator[Sample]:
    """The sample with simple values in all inputs, then in one after the other."""
    specs = [spec for spec in contract.inputs if not (spec.tree_of or spec.edges_of)]
    schemes = {spec.name: list(_simple(spec, base.feed[spec.name])) for spec in specs}
    longest = max(map(len, schemes.values()), default=0)
    for at in range(longest):
        every = {name: made[at % len(made)] for name, made in schemes.items() if made}
        yield _sample(base, every, "all inputs")
    if len(specs) > 1:
        for name, made in schemes.items():
            for one in made:
                yield _sample(base, {name: one}, name)


def _sample(base: Sample, values: dict[str, tuple[str, np.ndarray]], where: str) -> Sample:
    feed: Feed = {**base.feed, **{name: array for name, (_, array) in values.items()}}
    said = ", ".join(dict.fromkeys(text for text, _ in values.values()))
    return replace(
        base, fixed=False, description=f"{base.description}, {said} in {where}", feed=feed
    )


def _simple(spec: TensorSpec, drawn: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays of one value, and of one value with another in a single place."""
    if not drawn.size:
        return
    kind = kind_of(spec)
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum
    tried = [*_CONSTANTS]
    if kind == "b":
        low, high, tried = 0.0, 1.0, [0.0, 1.0]
    elif kind in "iu":
        info = np.iinfo(spec.dtype)
        low, high = max(low, info.min), min(high, info.max)
        tried = [*map(float, bounds(spec)), 0.0, *_CONSTANTS]
    numbers = [number for number in dict.fromkeys(tried) if low <= number <= high]
    pairs = [pair for pair in _PAIRS if all(low <= number <= high for number in pair)]
    generator = np.random.default_rng(0)

    def full(number: float) -> np.ndarray:
        spread = _JITTER * abs(number) * generator.uniform(-1, 1, drawn.shape)
        whole = kind_of(spec) != "f" or not low < number < high
        return (number + (0 if whole else spread) + np.zeros(drawn.shape)).astype(drawn.dtype)

    for number in numbers:
        yield f"{number:g} everywhere", full(number)
    for most, single in pairs:
        array = full(most)
        array.reshape(-1)[0] = single
        yield f"{most:g} everywhere but {single:g} in one place", array
