"""Trees given as parents: every parent within its own tree, one root, no cycle."""

from __future__ import annotations

import numpy as np

from keras_blocks.serving.values import refuse


def check_parents(
    name: str,
    parents: np.ndarray,
    row_splits: np.ndarray,
    max_children: int | None = None,
    forest: bool = False,
) -> None:
    """Checks a batch of trees; an empty tree is one.

    Args:
        name: str, the input, for the error.
        parents: the index of each node's parent in its own tree, -1 at the root.
        row_splits: tree i is parents[row_splits[i]:row_splits[i + 1]].
        max_children: int, how many children a node may have, or None for any number.
        forest: bool, whether a tree may have several roots.

    Raises:
        ContractError: names tree and node.

    Example:
        >>> check_parents("parents", np.array([-1, 0, 0, -1]), np.array([0, 3, 4]))
        >>> check_parents("parents", np.array([-1, 0, 5, -1]), np.array([0, 3, 4]))
        Traceback (most recent call last):
        ...
        keras_blocks.errors.ContractError: input 'parents': node 2 of tree 0 has parent 5, but ...
    """
    parents = parents.astype(np.int64)
    sizes = np.diff(row_splits)
    tree_of = rows_of(row_splits)
    outside = (parents < -1) | (parents >= sizes[tree_of])
    if outside.any():
        node = int(outside.argmax())
        raise refuse(
            name,
            f"{place(node, row_splits)} has parent {parents[node]}, but the tree has "
            f"{sizes[tree_of[node]]} nodes; parents are indices within their own tree, "
            f"-1 at the root",
        )
    roots = np.bincount(tree_of[parents == -1], minlength=len(sizes))
    wrong = ((roots == 0) | ((roots > 1) & (not forest))) & (sizes > 0)
    if wrong.any():
        tree = int(wrong.argmax())
        expected = "at least" if forest else "exactly"
        raise refuse(
            name, f"tree {tree} has {roots[tree]} roots (parent -1), {expected} one expected"
        )
    in_batch = parents + row_splits[:-1][tree_of]
    _refuse_cycles(name, parents, in_batch, row_splits)
    if max_children is not None:
        children = np.bincount(in_batch[parents >= 0], minlength=len(parents))
        if children.max(initial=0) > max_children:
            node = int(children.argmax())
            raise refuse(
                name,
                f"{place(node, row_splits)} has {children[node]} children, "
                f"at most {max_children} expected",
            )


def rows_of(row_splits: np.ndarray) -> np.ndarray:
    """For each value the row that it is in."""
    return np.repeat(np.arange(len(row_splits) - 1), np.diff(row_splits))


def place(node: int, row_splits: np.ndarray) -> str:
    """A node of the batch in words."""
    tree = int(rows_of(row_splits)[node])
    return f"node {node - row_splits[tree]} of tree {tree}"


def _refuse_cycles(
    name: str, parents: np.ndarray, in_batch: np.ndarray, row_splits: np.ndarray
) -> None:
    # Pointer doubling: every round doubles how far each node looks up. Who does not see a root
    # after enough rounds for the longest tree hangs below a cycle.
    nodes = np.arange(len(parents))
    is_root = parents == -1
    ancestor = np.where(is_root, nodes, in_batch)
    longest = int(np.diff(row_splits).max(initial=0))
    for _ in range(longest.bit_length()):
        ancestor = ancestor[ancestor]
    lost = ~is_root[ancestor]
    if lost.any():
        node = int(lost.argmax())
        raise refuse(
            name,
            f"{place(node, row_splits)} does not reach the root: its parents form a cycle",
        )
