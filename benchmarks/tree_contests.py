"""What is raced: which programs, on which trees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tree_limit
import tree_models
from rounds import Clock, clock, rounds
from tree_models import FEATURES, SAME, UNITS
from tree_peers import PeerError, Worker, store
from tree_samples import Forest, chains, functions, sentences, wide

OURS, IN_TENSORFLOW, ALL_NODES = "ours", "ours in TensorFlow", "ours, all nodes"
LIMIT, BY_LEVEL, ALL_GATES = "limit", "limit by level", "all gates"
WITH_FEATURES = "limit with features"
PREPARES = " prepares"
"""Behind a peer's name: the time that it takes to bring new trees into the form of its model."""
# A batch of one tree is measured over so many, one after another.
SINGLE = 25
BATCHES = (1, 8, 25, 64, 256, 1024)
FLAT_BATCHES = BATCHES[1:]
TRAINING_BATCHES = (25, 256)
DEPTHS = (10, 30, 100, 300, 1000)
CHAINS = 25
# Trees of 93 nodes, whatever the arity; 46 is the widest node of the syntax trees.
ARITIES = {2: 46, 4: 23, 23: 4, 46: 2}
WIDE_TREES = 64


@dataclass(frozen=True)
class Contest:
    """What came of one contest.

    Args:
        kind: str, what it asks.
        cell: str, of the Tree-LSTM.
        at: int, where on the scale of its kind: trees in a batch, depth, arity.
        facts: the shape of the trees.
        seconds: for each contestant the seconds for all these trees, a figure for each round.
        absent: why a contestant was not there.
    """

    kind: str
    cell: str
    at: int
    facts: dict[str, float]
    seconds: dict[str, list[float]]
    absent: dict[str, str] = field(default_factory=dict)


@dataclass
class Arena:
    """Where the contests take place.

    Args:
        workers: the peers.
        runs: int, rounds of each contest.
        folder: for the files that all contestants read.
    """

    workers: Sequence[Worker]
    runs: int
    folder: Path
    _files: dict[str, onnxruntime.InferenceSession] = field(default_factory=dict, init=False)

    @cached_property
    def models(self) -> dict[str, Any]:
        """Ours, the same weights in all contests."""
        return {cell: tree_models.tree_lstm(cell) for cell in tree_models.CELLS}

    def file(self, cell: str, of_nodes: bool = False) -> onnxruntime.InferenceSession:
        """The exported file that gives the roots, or all nodes; made when first asked for."""
        name = f"{cell} nodes" if of_nodes else cell
        if name not in self._files:
            model = self.models[cell]
            if of_nodes:
                model = tree_models.tree_lstm(cell, return_nodes=True)
                model.set_weights(self.models[cell].get_weights())
            self._files[name] = tree_models.session(model, self.folder / f"{name}.onnx")
        return self._files[name]

    def inference(self, kind: str, cell: str, at: int, batches: Sequence[Forest]) -> Contest:
        """The file and the model in TensorFlow beside the limit and the peers."""
        file = tree_models.in_onnxruntime(self.file(cell), batches)
        model = tree_models.in_tensorflow(self.models[cell], batches)
        expected = np.concatenate(model())
        np.testing.assert_allclose(np.concatenate(file()), expected, **SAME)
        clocks = {OURS: clock(file), IN_TENSORFLOW: clock(model)}
        for name, count in _counts(kind).items():
            clocks[name] = clock(_together([
                tree_limit.in_onnxruntime(count(batch, cell, FEATURES, UNITS)) for batch in batches
            ]))  # fmt: skip
        absent = self._admit(clocks, cell, batches, expected, training=False)
        return self._contest(kind, cell, at, batches, clocks, absent)

    def training(self, cell: str, at: int, batch: Forest) -> Contest:
        """`fit` beside the limit and the peers."""
        model = tree_models.tree_lstm(cell)
        model.set_weights(self.models[cell].get_weights())
        expected = model.predict_on_batch(tree_models.ragged(batch))
        fit = tree_models.Fit(model, batch)
        clocks: dict[str, Clock] = {OURS: fit}
        for name, count in _counts("training").items():
            products = count(batch, cell, FEATURES, UNITS)
            clocks[name] = clock(tree_limit.in_tensorflow(products, training=True))
        try:
            absent = self._admit(clocks, cell, [batch], expected, training=True)
            return self._contest("training", cell, at, [batch], clocks, absent)
        finally:
            fit.close()

    def all_nodes(self, cell: str, at: int, batch: Forest) -> Contest:
        """The file that gives all nodes beside the one that gives roots."""
        files = {OURS: self.file(cell), ALL_NODES: self.file(cell, of_nodes=True)}
        clocks = {
            name: clock(tree_models.in_onnxruntime(file, [batch])) for name, file in files.items()
        }
        return self._contest("all nodes", cell, at, [batch], clocks, {})

    def flat(self, cell: str, batches: Sequence[int]) -> Contest:
        """The file on batches of so many trees, against each other; seconds of a node."""
        forests = {f"{size} trees": sentences(size) for size in batches}
        clocks = {
            name: clock(tree_models.in_onnxruntime(self.file(cell), [forest]))
            for name, forest in forests.items()
        }
        last = list(forests.values())[-1]
        contest = self._contest("flat", cell, batches[-1], [last], clocks, {})
        of_a_node = {
            name: [taken / forests[name].nodes for taken in seconds]
            for name, seconds in contest.seconds.items()
        }
        return replace(contest, seconds=of_a_node)

    def _admit(
        self,
        clocks: dict[str, Clock],
        cell: str,
        batches: Sequence[Forest],
        expected: np.ndarray,
        training: bool,
    ) -> dict[str, str]:
        """Adds the peers that have the cell and compute what we do; why the others are absent."""
        absent = {}
        path = self.folder / "batches.npz"
        if self.workers:
            store(batches, tree_models.weights(self.models[cell]), path)
        for worker in self.workers:
            if cell not in worker.cells:
                absent[worker.name] = f"has no {cell} cell"
                continue
            try:
                roots = worker.load(path, cell, training)
            except PeerError as error:
                absent[worker.name] = str(error)
                continue
            np.testing.assert_allclose(roots, expected, **SAME, err_msg=worker.name)
            clocks[worker.name] = worker
            if not training:
                clocks[worker.name + PREPARES] = partial(worker, task="prepare")
        return absent

    def _contest(
        self,
        kind: str,
        cell: str,
        at: int,
        batches: Sequence[Forest],
        clocks: dict[str, Clock],
        absent: dict[str, str],
    ) -> Contest:
        facts = Forest.of([row for batch in batches for row in batch.rows()]).facts()
        return Contest(kind, cell, at, facts, rounds(clocks, self.runs), absent)


def _counts(kind: str) -> dict[str, Callable[..., list[tree_limit.Product]]]:
    """The limits to measure: the one that a contest is judged by is `LIMIT`."""
    if kind == "training":
        return {
            LIMIT: tree_limit.needed,
            WITH_FEATURES: tree_limit.with_features,
            ALL_GATES: tree_limit.all_gates,
        }
    if kind == "depth":
        return {LIMIT: tree_limit.by_level, ALL_GATES: tree_limit.all_gates}
    return {
        LIMIT: tree_limit.needed,
        BY_LEVEL: tree_limit.by_level,
        ALL_GATES: tree_limit.all_gates,
    }


def _together(calls: Sequence[Callable[[], Any]]) -> Callable[[], Any]:
    return lambda: [call() for call in calls]


@dataclass(frozen=True)
class Entry:
    """A contest that is still to come."""

    kind: str
    cell: str
    at: int
    run: Callable[[Arena], Contest]

    @property
    def name(self) -> str:
        return f"{self.kind}, {self.cell}, {self.at}"


def programme(quick: bool) -> list[Entry]:
    """All contests, or a few small ones."""
    cells = ["child-sum"] if quick else list(tree_models.CELLS)
    batches, training = ((1, 25), (25,)) if quick else (BATCHES, TRAINING_BATCHES)
    depths, arities = (DEPTHS[:1], [2, 46]) if quick else (DEPTHS, ARITIES)
    nodes, code = ((25,), (25,)) if quick else ((64, 256), (64, 256))
    sizes = (8, 64) if quick else FLAT_BATCHES
    return [
        *(Entry("inference", c, at, partial(_sentences, c, at)) for c in cells for at in batches),
        *(Entry("flat", c, sizes[-1], partial(_flat, c, sizes)) for c in cells),
        *(Entry("training", c, at, partial(_training, c, at)) for c in cells for at in training),
        *(Entry("syntax trees", "child-sum", at, partial(_code, at)) for at in code),
        *(Entry("depth", "child-sum", at, partial(_depth, at)) for at in depths),
        *(Entry("arity", "child-sum", at, partial(_arity, at)) for at in arities),
        *(Entry("all nodes", c, at, partial(_nodes, c, at)) for c in cells for at in nodes),
    ]


def _sentences(cell: str, at: int, arena: Arena) -> Contest:
    batches = sentences(SINGLE).batches(1) if at == 1 else [sentences(at)]
    return arena.inference("inference", cell, at, batches)


def _flat(cell: str, sizes: Sequence[int], arena: Arena) -> Contest:
    return arena.flat(cell, sizes)


def _training(cell: str, at: int, arena: Arena) -> Contest:
    return arena.training(cell, at, sentences(at))


def _code(at: int, arena: Arena) -> Contest:
    return arena.inference("syntax trees", "child-sum", at, [functions(at)])


def _depth(at: int, arena: Arena) -> Contest:
    return arena.inference("depth", "child-sum", at, [chains(CHAINS, at)])


def _arity(at: int, arena: Arena) -> Contest:
    return arena.inference("arity", "child-sum", at, [wide(WIDE_TREES, at, ARITIES[at])])


def _nodes(cell: str, at: int, arena: Arena) -> Contest:
    return arena.all_nodes(cell, at, sentences(at))
