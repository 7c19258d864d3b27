"""Random trees as parent arrays, for the samples of tree inputs."""

from __future__ import annotations

import numpy as np

SHAPES = ("binary", "chain", "star", "random")


def random_parents(
    nodes: int, shape: str, generator: np.random.Generator, max_children: int | None = None
) -> np.ndarray:
    """The parents of one tree whose nodes stand in random order; -1 marks the root.

    Args:
        nodes: int, 0 gives the empty tree.
        shape: "binary" (no node has more than two children), "chain", "star" (all nodes under the
            root) or "random" (any number of children).
        generator: the source of randomness.
        max_children: int, a node takes no more; a star then grows from the root in breadth.
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
    for position in range(1, nodes):
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
