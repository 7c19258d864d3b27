"""The trees that the benchmarks run on: sentences, chains, wide trees, Python's own code."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from keras_blocks import trees

# Sentences of the Stanford Sentiment Treebank have 19 words on average, 52 at most.
WORDS, WORDS_SPREAD, LONGEST = 19.2, 9.3, 52
# Below 1, splits are uneven: with this the trees of those sentences have 10 levels on average.
EVENNESS = 0.4
WIDEST = 46


@dataclass(frozen=True)
class Forest:
    """A batch of trees.

    Args:
        parents: int32, for all trees after one another: the index of each node's parent in its own
            tree, -1 at the root.
        row_splits: int64, where each tree starts, and behind the last where it ends.
    """

    parents: np.ndarray
    row_splits: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Iterable[int]]) -> Forest:
        arrays = [np.asarray(row, "int32") for row in rows]
        splits = np.cumsum([0, *map(len, arrays)]).astype("int64")
        return cls(np.concatenate(arrays), splits)

    @property
    def trees(self) -> int:
        return len(self.row_splits) - 1

    @property
    def nodes(self) -> int:
        return len(self.parents)

    @cached_property
    def global_parents(self) -> np.ndarray:
        """The parents as indices into all nodes, -1 at roots."""
        start = np.repeat(self.row_splits[:-1], np.diff(self.row_splits))
        return np.where(self.parents < 0, -1, self.parents + start)

    @cached_property
    def children(self) -> np.ndarray:
        """How many children each node has."""
        parents = self.global_parents
        return np.bincount(parents[parents >= 0], minlength=self.nodes)

    @cached_property
    def level(self) -> np.ndarray:
        """The depth of each node, 0 at the roots."""
        level, parents = np.zeros(self.nodes, "int64"), self.global_parents
        here = np.flatnonzero(parents < 0)
        by_parent = np.argsort(parents, kind="stable")
        first = np.searchsorted(parents[by_parent], np.arange(self.nodes))
        depth = 0
        while len(here):
            level[here] = depth
            counts = self.children[here]
            offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            here = by_parent[np.repeat(first[here], counts) + offsets]
            depth += 1
        return level

    def features(self, size: int) -> np.ndarray:
        """A random vector for each node."""
        return np.random.default_rng(1).normal(size=(self.nodes, size)).astype("float32")

    def facts(self) -> dict[str, float]:
        """The shape of the batch, for the tables."""
        heights = np.maximum.reduceat(self.level, self.row_splits[:-1]) + 1
        return {
            "trees": self.trees,
            "nodes": self.nodes,
            "mean nodes": self.nodes / self.trees,
            "mean levels": float(heights.mean()),
            "levels": int(heights.max()),
            "widest": int(self.children.max()),
        }

    def rows(self) -> list[np.ndarray]:
        """The parents of each tree."""
        return np.split(self.parents, self.row_splits[1:-1])

    def batches(self, size: int) -> list[Forest]:
        """The same trees, so many at a time."""
        rows = self.rows()
        return [Forest.of(rows[at : at + size]) for at in range(0, len(rows), size)]


def sentences(count: int) -> Forest:
    """Binary trees over sentences of random length, split at random places."""
    generator = np.random.default_rng(0)
    drawn = np.rint(generator.normal(WORDS, WORDS_SPREAD, count))
    return Forest.of([_split(int(words), generator) for words in np.clip(drawn, 2, LONGEST)])


def _split(words: int, generator: np.random.Generator) -> list[int]:
    parents: list[int] = []
    waiting = [(words, -1)]
    while waiting:
        size, parent = waiting.pop()
        node = len(parents)
        parents.append(parent)
        if size > 1:
            left = 1 + int(generator.beta(EVENNESS, EVENNESS) * (size - 1))
            left = min(left, size - 1)
            waiting += [(size - left, node), (left, node)]
    return parents


def chains(count: int, depth: int) -> Forest:
    """Trees in which every node has one child, and the last none."""
    return Forest.of([range(-1, depth - 1)] * count)


def wide(count: int, arity: int, inner: int) -> Forest:
    """Trees of so many inner nodes that have so many children each, grown at random leaves."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        parents, leaves = [-1], [0]
        for _ in range(inner):
            node = leaves.pop(int(generator.integers(len(leaves))))
            leaves += range(len(parents), len(parents) + arity)
            parents += [node] * arity
        rows.append(parents)
    return Forest.of(rows)


def functions(count: int, fewest: int = 10, most: int = 400) -> Forest:
    """The syntax trees of functions of Python's standard library, one of the widest among them."""
    found = [tree.parents for tree in _functions() if fewest <= len(tree) <= most]
    found = [parents for parents in found if _widest(parents) <= WIDEST]
    order = np.random.default_rng(0).permutation(len(found))
    chosen = [found[place] for place in order[: count - 1]]
    return Forest.of([*chosen, max(found, key=_widest)])


def _widest(parents: Sequence[int]) -> int:
    return int(np.bincount(np.asarray(parents) + 1)[1:].max(initial=0))


def _functions() -> Iterable[trees.Tree]:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old escapes in strings
            module = ast.parse(path.read_bytes())
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef):
                yield trees.from_ast(node)
