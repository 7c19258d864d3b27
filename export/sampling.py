"""Inputs that tell a right export from a wrong one, drawn from a model's contract.

Exporters freeze a dynamic size, forget the mask, or fall over an empty row; so the samples vary
the batch, every named dim and the rows, and put blanks (zeros, which masked embeddings and Masking
layers read as "not there") in front, in the middle, at the end, and over whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.export.random_trees import leaf_count, random_edges, random_parents
from keras_blocks.export.sample_values import (
    BLANKS_TEXT,
    bounds,
    draw_values,
    has_steps,
    is_ids,
    kind_of,
    put_blanks,
)

BATCH = "batch"
MOST_IDS = 8192  # of a larger vocabulary this many ids are drawn
MOST_ROOTS = 3  # of a row, where forests are allowed
MOST_ELEMENTS = 2**21  # of one input; beyond this a sample takes too long to be worth it


@dataclass(frozen=True)
class Sample:
    """The flat inputs of one run, by name, and the sample in words."""

    description: str
    feed: dict[str, np.ndarray]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs by name."""
        return {name: value.shape for name, value in self.feed.items()}


@dataclass(frozen=True)
class Plan:
    """What a sample looks like.

    Args:
        lengths: of the rows, whose number is the batch; only ragged inputs read the values.
        size: of the named dims; 1 is the case most often frozen.
        apart: the second, third ... named dim and ragged input get other sizes than the first.
        blanks: "front", "middle", "tail", "rows" or None: where zeros are put.
        trees: the shape of the trees.
        scale: of the floats.
    """

    lengths: tuple[int, ...]
    size: int = 4
    apart: bool = False
    blanks: str | None = None
    trees: str = "binary"
    scale: float = 1.0


def _dense(batch: int, size: int, **rest: object) -> Plan:
    return Plan((size,) * batch, size, **rest)  # type: ignore[arg-type]


# Sizes: 1, primes, powers of two and one more, for kernels that work in blocks of 4, 8 or 16.
DENSE_PLANS = (
    _dense(1, 1),
    _dense(1, 7, blanks="tail"),
    _dense(2, 2),
    _dense(2, 3, apart=True),
    _dense(3, 16, blanks="front"),
    _dense(5, 17, blanks="rows"),
    _dense(7, 3, blanks="middle"),
    _dense(3, 9, scale=10.0),
    _dense(17, 5, apart=True, blanks="middle"),
    _dense(1, 33),
)
RAGGED_PLANS = (
    Plan((1,), 1),
    Plan((7,), 2),
    Plan((3, 1), 3, blanks="tail"),
    Plan((0, 4, 2), 5, trees="chain"),
    Plan((5, 0, 0, 7), 2, blanks="front"),
    Plan((6, 0), 1, apart=True, trees="star"),
    Plan((0,), 3),
    Plan((0, 0, 0), 2),
    Plan((), 2),
    Plan((1, 1, 1), 7, blanks="rows"),
    Plan((9, 4, 2), 3, scale=10.0, trees="chain"),
    Plan((16, 1, 17, 3, 2), 16, trees="random", blanks="middle"),
    Plan((16, 1, 17, 3, 2), 5, trees="binary"),
    Plan((2, 9, 5), 17, apart=True, trees="random"),
    Plan((33, 2, 0, 5, 11, 7, 1), 17, trees="chain"),
)
# For models that refuse short inputs: deep stacks of unpadded windows, image backbones.
LARGER_PLANS = tuple(_dense(batch, size) for batch, size in ((1, 47), (2, 65), (3, 128), (2, 225)))


def draw_samples(
    contract: Contract, seed: int = 0, plans: tuple[Plan, ...] | None = None
) -> Iterator[Sample]:
    """The samples of a contract, small ones first; the same seed gives the same samples.

    Raises:
        ExportError: an input has a dtype for which nothing can be drawn.
    """
    if plans is None:
        ragged = any(spec.ragged for spec in contract.inputs)
        plans = (*(RAGGED_PLANS if ragged else DENSE_PLANS), *_vocabulary_plans(contract))
    seen = set()
    for number, plan in enumerate(plans):
        room = _Room(contract, plan)
        if room.description in seen or room.largest() > MOST_ELEMENTS:
            continue
        seen.add(room.description)
        yield Sample(room.description, room.draw(np.random.default_rng([seed, number])))


def _vocabulary_plans(contract: Contract) -> Iterator[Plan]:
    """One plan with room for every token id, in rows so short that no id is forgotten again."""
    counts = [bounds(spec)[1] - bounds(spec)[0] + 1 for spec in contract.inputs if is_ids(spec)]
    if counts:
        steps = min(_steps(spec) for spec in contract.inputs if is_ids(spec))
        rows = math.ceil(min(max(counts), MOST_IDS) / steps)
        yield Plan((steps,) * rows, steps, trees="chain")


def _steps(spec: TensorSpec) -> int:
    if spec.leaves_of:
        return 1  # a chain has one leaf
    fixed = math.prod(n for n in spec.shape[1:] if isinstance(n, int))
    dynamic = spec.ragged or any(isinstance(n, str) for n in spec.shape[1:])
    return 3 * fixed if dynamic else max(fixed, 1)


def _with_fixed_batch(plan: Plan, contract: Contract) -> Plan:
    """The plan with as many rows as the model has, where that number is fixed."""
    first_dims = [spec.shape[0] for spec in contract.inputs if spec.shape and not spec.ragged]
    fixed = [dim for dim in first_dims if isinstance(dim, int)]
    if not fixed:
        return plan
    rows = plan.lengths or (1,)
    return replace(plan, lengths=tuple(rows[i % len(rows)] for i in range(fixed[0])))


class _Room:
    """A contract whose dims have the sizes of a plan."""

    def __init__(self, contract: Contract, plan: Plan):
        self.specs = contract.inputs
        self.by_name = {spec.name: spec for spec in contract.inputs}
        self.plan = plan = _with_fixed_batch(plan, contract)
        self.sizes = {BATCH: len(plan.lengths)}
        self.rows: dict[str, tuple[int, ...]] = {}
        for spec in self.specs:
            for dim in spec.shape[1:] if spec.ragged else spec.shape:
                if isinstance(dim, str) and dim not in self.sizes:
                    self.sizes[dim] = plan.size + (len(self.sizes) - 1) * plan.apart
            if spec.ragged and self._rows_key(spec) not in self.rows:
                turn = len(self.rows) * plan.apart
                turned = (*plan.lengths[turn:], *plan.lengths[:turn])
                self.rows[self._rows_key(spec)] = turned

    @property
    def description(self) -> str:
        """The sizes in words, and what is special about the values."""
        parts = []
        if self.rows:
            several = len(set(self.rows.values())) > 1
            for key, lengths in self.rows.items():
                whose = f" in {key}" if several else ""
                parts.append(f"rows of {_lengths_text(lengths)}{whose}" if lengths else "no rows")
                if not several:
                    break
        elif any(BATCH in spec.shape for spec in self.specs):
            parts.append(f"batch {self.sizes[BATCH]}")
        parts.extend(f"{name} {size}" for name, size in self.sizes.items() if name != BATCH)
        if any(spec.tree_of for spec in self.specs) and max(self.plan.lengths, default=0) > 1:
            forest = any(spec.forest for spec in self.specs)
            parts.append(f"{self.plan.trees} {'forests' if forest else 'trees'}")
        if self.plan.blanks and any(map(has_steps, self.specs)):
            parts.append(BLANKS_TEXT[self.plan.blanks])
        if self.plan.scale != 1 and any(kind_of(spec) == "f" for spec in self.specs):
            parts.append(f"floats times {self.plan.scale:g}")
        return ", ".join(parts) or "the one shape"

    def largest(self) -> int:
        """The number of elements of the largest input."""
        shapes = (self._shape(spec, self._lengths(spec, {})) for spec in self.specs)
        return max(map(math.prod, shapes), default=0)

    def draw(self, generator: np.random.Generator) -> dict[str, np.ndarray]:
        """The flat inputs."""
        trees = {spec.name: self._trees(spec, generator) for spec in self.specs if spec.tree_of}
        feed = {}
        for spec in self.specs:
            lengths = self._lengths(spec, trees)
            if spec.tree_of:
                values = _joined(spec, trees[spec.name])
            elif spec.edges_of:
                values = _joined(spec, _edges(spec, trees[spec.edges_of], generator))
            else:
                shape = self._shape(spec, lengths)
                values = draw_values(spec, shape, self.plan.scale, generator)
                if self.plan.blanks and has_steps(spec):
                    put_blanks(values, spec, lengths, self.plan.blanks)
            feed[spec.name] = values
            if spec.ragged:
                feed[spec.row_splits_name] = np.cumsum([0, *lengths], dtype="int64")
        return feed

    def _trees(self, spec: TensorSpec, generator: np.random.Generator) -> list[np.ndarray]:
        """The parents of each row."""

        def tree(nodes: int) -> np.ndarray:
            roots = int(generator.integers(1, MOST_ROOTS, endpoint=True)) if spec.forest else 1
            return random_parents(nodes, self.plan.trees, generator, spec.max_children, roots)

        return [tree(nodes) for nodes in self._lengths(spec, {})]

    def _rows_key(self, spec: TensorSpec) -> str:
        """What all inputs with the same rows have in common."""
        tree = self.by_name.get(spec.edges_of or spec.leaves_of or spec.name, spec)
        head = self.by_name.get(tree.tree_of or tree.name, tree)
        return str(head.shape[0]).removesuffix(".values")

    def _lengths(self, spec: TensorSpec, trees: Mapping[str, list[np.ndarray]]) -> tuple[int, ...]:
        """How long the rows are; without the trees those of leaves are as long as they may be."""
        if spec.leaves_of is not None and trees:
            return tuple(map(leaf_count, trees[spec.leaves_of]))
        return self.rows[self._rows_key(spec)] if spec.ragged else ()

    def _shape(self, spec: TensorSpec, lengths: tuple[int, ...]) -> tuple[int, ...]:
        shape = tuple(dim if isinstance(dim, int) else self.sizes.get(dim, 0) for dim in spec.shape)
        return (sum(lengths), *shape[1:]) if spec.ragged else shape


def _edges(
    spec: TensorSpec, trees: list[np.ndarray], generator: np.random.Generator
) -> list[np.ndarray]:
    """What stands above the nodes of each tree."""
    labels = spec.edge_labels or bounds(spec)[1] + 1
    drawn = [random_edges(tree, labels, spec.siblings_differ, generator) for tree in trees]
    return [np.clip(edges, spec.minimum, spec.maximum) for edges in drawn]


def _joined(spec: TensorSpec, rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *rows]).astype(spec.dtype)


def _lengths_text(lengths: tuple[int, ...]) -> str:
    if len(lengths) > 8:
        return f"{min(lengths)} to {max(lengths)} ({len(lengths)} rows)"
    return ", ".join(map(str, lengths))
