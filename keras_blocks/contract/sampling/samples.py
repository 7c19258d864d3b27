"""Inputs that tell a right export from a wrong one, drawn from a model's contract.

Exporters freeze a dynamic size, forget the mask, or fall over an empty row; so the samples vary
the batch, every named dim, from the least that the contract knows on, and the rows, and put blanks
(zeros, which masked embeddings and Masking layers read as "not there") in front, in the middle, at
the end, and over whole rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.sampling.plans import Plan, plans_of, with_fixed_batch
from keras_blocks.contract.sampling.random_trees import leaf_count, random_edges, random_parents
from keras_blocks.contract.sampling.values import (
    BLANKS_TEXT,
    bounds,
    draw_values,
    has_steps,
    is_any_integer,
    is_image,
    kind_of,
    put_blanks,
)

Feed = dict[str, np.ndarray]
"""The flat inputs of one run, by name."""

BATCH = "batch"
MOST_ROOTS = 3  # of a row, where forests are allowed
MOST_ELEMENTS = 2**21  # of one input; beyond this a sample takes too long to be worth it


@dataclass(frozen=True)
class Sample:
    """The flat inputs of one run.

    Args:
        description: str, the sample in words.
        feed: the inputs by name.
        plan: what it was drawn from, if it was drawn.
        fixed: bool, False where the time decides whether it is run.
    """

    description: str
    feed: dict[str, np.ndarray]
    plan: Plan | None = None
    fixed: bool = True

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the inputs by name."""
        return {name: value.shape for name, value in self.feed.items()}

    @property
    def elements(self) -> int:
        """How many numbers the inputs have in all."""
        return sum(value.size for value in self.feed.values())


def draw_samples(
    contract: Contract, seed: int = 0, plans: tuple[Plan, ...] | None = None
) -> Iterator[Sample]:
    """The samples of a contract, small ones first; the same seed gives the same samples.

    Raises:
        ExportError: an input has a dtype for which nothing can be drawn.
    """
    seen = set()
    for number, plan in enumerate(plans_of(contract) if plans is None else plans):
        room = _Room(contract, plan)
        if room.description in seen or room.largest() > MOST_ELEMENTS:
            continue
        seen.add(room.description)
        values = room.draw(np.random.default_rng([seed, number]))
        yield Sample(room.description, values, room.plan)


class _Room:
    """A contract whose dims have the sizes of a plan."""

    def __init__(self, contract: Contract, plan: Plan):
        self.specs = contract.inputs
        self.by_name = {spec.name: spec for spec in contract.inputs}
        self.plan = plan = with_fixed_batch(plan, contract)
        self.sizes = {BATCH: len(plan.lengths)}
        self.rows: dict[str, tuple[int, ...]] = {}
        least = contract.least_sizes()
        if plan.as_one:
            least = dict.fromkeys(least, max(least.values(), default=0))
        for spec in self.specs:
            for dim in spec.shape[1:] if spec.ragged else spec.shape:
                if isinstance(dim, str) and dim not in self.sizes:
                    self.sizes[dim] = self._size(least[dim])
            if spec.ragged and self._rows_key(spec) not in self.rows:
                turn = len(self.rows) * plan.apart
                turned = (*plan.lengths[turn:], *plan.lengths[:turn])
                self.rows[self._rows_key(spec)] = turned

    def _size(self, least: int) -> int:
        """That of the next dim: those of a plan count from the least that the model takes."""
        size = self.plan.size + max(least - 1, 0)
        # So far that it shows behind strides too.
        step = max(size // 4, 1)
        while self.plan.apart and size in self.sizes.values():
            size += step
        return size

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
        if self.plan.scale > 1 and any(map(is_any_integer, self.specs)):
            parts.append("large integers")
        if self.plan.pixels and any(map(is_image, self.specs)):
            parts.append("pixels")
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
                values = draw_values(spec, shape, self.plan.scale, generator, self.plan.pixels)
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
