"""Random trees as parent arrays, and what stands above their nodes, for samples of trees."""

from __future__ import annotations

import numpy as np

SHAPES = ("binary", "chain", "star", "random")


def random_parents(
    nodes: int,
    shape: str,
    generator: np.random.Generator,
    max_children: int | None = None,
    roots: int = 1,
) -> np.ndarray:
    """The parents of one tree whose nodes stand in random order; -1 marks the root.

    Args:
        nodes: int, 0 gives the empty tree.
        shape: "binary" (no node has more than two children), "chain", "star" (all nodes under the
            root) or "random" (any number of children). In a forest a chain hangs below one root.
        generator: the source of randomness.
        max_children: int, a node takes no more; a star then grows from the root in breadth.
        roots: int, how many there are, if there are as many nodes: more make a forest.
    Returns:
        int64 array of `nodes` indices.
    """
    order = generator.permutation(nodes)
    parents = np.full(nodes, -1, dtype="int64")
    children = np.zeros(nodes, dtype="int64")
    if shape not in SHAPES:
        raise ValueError(f"A tree's shape is one of {SHAPES}. Received: shape={shape!r}")
    most = nodes if max_children is None else max_children
    if shape == "binary":
        most = min(most, 2)
    for position in range(roots, nodes):
        room = np.flatnonzero(children[:position] < most)
        if shape == "chain":
            chosen = int(room[-1])
        elif shape == "star":
            chosen = int(room[0])
        else:
            chosen = int(generator.choice(room))
        children[chosen] += 1
        parents[order[position]] = order[chosen]
    return parents


def leaf_count(parents: np.ndarray) -> int:
    """How many nodes of one tree have no children."""
    return len(parents) - len(np.unique(parents[parents >= 0]))


def random_edges(
    parents: np.ndarray, labels: int, siblings_differ: bool, generator: np.random.Generator
) -> np.ndarray:
    """A label from 0 to `labels` - 1 for each node of one tree, and at roots what is no label.

    Args:
        parents: of the tree.
        labels: int, at least as many as a node has children where `siblings_differ`.
        siblings_differ: bool, whether the children of a node get labels of their own.
        generator: the source of randomness.
    """
    edges = generator.integers(0, labels, len(parents))
    if siblings_differ:
        for parent in np.unique(parents):
            children = np.flatnonzero(parents == parent)
            if parent >= 0:
                edges[children] = generator.permutation(labels)[: len(children)]
    is_root = parents < 0
    edges[is_root] = generator.choice([-1, labels], int(is_root.sum()))
    return edges
