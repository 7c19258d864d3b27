"""Random trees as parent arrays, for the samples of tree inputs."""

from __future__ import annotations

import numpy as np

SHAPES = ("binary", "chain", "star", "random")


def random_parents(nodes: int, shape: str, generator: np.random.Generator) -> np.ndarray:
    """The parents of one tree whose nodes stand in random order; -1 marks the root.

    Args:
        nodes: int, 0 gives the empty tree.
        shape: "binary" (no node has more than two children), "chain", "star" (all nodes under the
            root) or "random" (any number of children).
        generator: the source of randomness.
    Returns:
        int64 array of `nodes` indices.
    """
    order = generator.permutation(nodes)
    parents = np.full(nodes, -1, dtype="int64")
    children = np.zeros(nodes, dtype="int64")
    for position in range(1, nodes):
        if shape == "chain":
            chosen = position - 1
        elif shape == "star":
            chosen = 0
        elif shape == "binary":
            chosen = int(generator.choice(np.flatnonzero(children[:position] < 2)))
        elif shape == "random":
            chosen = int(generator.integers(0, position))
        else:
            raise ValueError(f"A tree's shape is one of {SHAPES}. Received: shape={shape!r}")
        children[chosen] += 1
        parents[order[position]] = order[chosen]
    return parents
