"""A tree, and the vocabulary of its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from keras_blocks.contract.tree_rules import UNEQUAL_ROWS, validate
from keras_blocks.errors import TreeError


@dataclass(frozen=True)
class Tree:
    """A tree: node i has `labels[i]` and hangs below node `parents[i]`.

    Args:
        labels: tuple, one label for each node: strings, integers, or vectors of numbers.
        parents: tuple of int, the index of each node's parent, -1 at the root. Nodes may stand in
            any order; the functions of this module put parents before their children.

    Raises:
        TreeError: the parents are those of no tree.
    """

    labels: tuple[Any, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.parents):
            raise TreeError(UNEQUAL_ROWS.format(0, len(self.labels), len(self.parents)))
        validate(self.parents)

    def __len__(self) -> int:
        return len(self.parents)

    def children(self) -> list[list[int]]:
        """The indices of each node's children, in order."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(node)
        return children


class Vocabulary:
    """Numbers the labels of trees from 1; 0 is any label that is not in it.

    Args:
        labels: the labels in the order of their numbers, each once. The attribute `labels` gives
            them back, to be stored.

    Example:
        >>> words = Vocabulary(["S", "NP"])
        >>> words["NP"], words["never seen"], len(words)
        (2, 0, 3)
    """

    def __init__(self, labels: Iterable[Hashable]):
        self.labels = tuple(labels)
        self._ids = {label: index for index, label in enumerate(self.labels, start=1)}
        if len(self._ids) < len(self.labels):
            twice = next(label for label, count in Counter(self.labels).items() if count > 1)
            raise ValueError(f"Vocabulary: the label {twice!r} is given more than once.")

    @classmethod
    def of(cls, trees: Iterable[Tree], size: int | None = None, min_count: int = 1) -> Vocabulary:
        """The labels of these trees, the most frequent first.

        Args:
            trees: iterable of `Tree`.
            size: int, keep so many ids at most, the 0 of unknown labels included.
            min_count: int, leave out labels that are rarer.
        """
        counts = Counter(label for tree in trees for label in tree.labels)
        kept = [label for label, count in counts.most_common() if count >= min_count]
        return cls(kept if size is None else kept[: max(size - 1, 0)])

    def __getitem__(self, label: Hashable) -> int:
        return self._ids.get(label, 0)

    def __contains__(self, label: Hashable) -> bool:
        return label in self._ids

    def __iter__(self) -> Iterator[Hashable]:
        # Without it Python would count up through __getitem__, which has an answer to everything.
        return iter(self.labels)

    def __len__(self) -> int:
        """How many ids there are: the `input_dim` of an Embedding."""
        return len(self.labels) + 1
