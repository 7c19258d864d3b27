"""Which parents make a tree, and what is said of those that do not.

The messages are shared with the checks in the graph (`mechanisms.tree_checks`), which fill the same
blanks, in the same order. This needs nothing but the standard library.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

from keras_blocks.errors import TreeError

_PARENTS = (
    "Parents are indices within their own tree, -1 at the root. From heads that count from 1 "
    "(CoNLL-U) subtract 1; a root that is its own head (spaCy) gets -1."
)
UNEQUAL_BATCHES = "the features hold {} trees, but the parents {}. Both need the same rows."
UNEQUAL_ROWS = (
    "tree {} has features for {} nodes, but parents for {}. Give one parent for each node, "
    "-1 at the root."
)
OUT_OF_RANGE = f"node {{}} of tree {{}} has parent {{}}, but the tree has {{}} nodes. {_PARENTS}"
OWN_PARENT = f"node {{}} of tree {{}} is its own parent. {_PARENTS}"
SECOND_ROOT = (
    "node {} of tree {} is a second root (parent -1) beside node {}. A tree has one root: give "
    "the trees of a forest as rows of their own, or a row with several roots to "
    "TreeRecursive(forests='sum')."
)
NO_ROOT = (
    f"tree {{}} has no root: none of its {{}} nodes, from node 0 on, has parent -1. {_PARENTS}"
)
CYCLE = (
    "node {} of tree {} never reaches the root: its parents run in a cycle. "
    "Follow the parents from this node to find it."
)
UNEQUAL_LEAVES = (
    "tree {} has features for {} leaves, but it has {}. With features_on='leaves' give a row for "
    "each node without children, in the order of their indices, and none for the others."
)
BAD_SLOT = (
    "node {} of tree {} has slot {} below its parent, but the cell has {} slots, from 0 on. Raise "
    "`arity`, or number the slots from 0."
)
SAME_SLOT = (
    "node {} of tree {} has slot {} below its parent, as node {} has. Siblings need slots of "
    "their own."
)
UNKNOWN_LABEL = (
    "node {} of tree {} has the edge label {}, but the cell knows {} labels, from 0 on. Raise "
    "`edge_labels`, or number the labels from 0."
)
OTHER_BATCH = (
    "node {} of tree {} has place {} among {} nodes, alone or not: this is the schedule of another "
    "batch. Call trees.schedule after the last step that batches, shuffles or splits."
)
CROWDED = (
    "node {} of tree {} has {} children, but the cell takes {}. Raise `arity`, or use a cell for "
    "any number of children (ChildSumTreeLSTMCell)."
)


def validate(parents: Sequence[int], tree: int = 0) -> None:
    """Refuses parents that are those of no tree. No node at all is a tree.

    Args:
        parents: sequence of int, the index of each node's parent, -1 at the root.
        tree: int, what the message calls the tree.

    Raises:
        TreeError: a parent out of range, a node that is its own parent, two roots, no root, or a
            cycle; the message names tree and node.

    Example:
        >>> validate([-1, 0, 5], tree=3)
        Traceback (most recent call last):
        keras_blocks.errors.TreeError: node 2 of tree 3 has parent 5, but the tree has 3 nodes. \
Parents are indices within their own tree, -1 at the root. From heads that count from 1 \
(CoNLL-U) subtract 1; a root that is its own head (spaCy) gets -1.
    """
    parents = [operator.index(parent) for parent in parents]
    for node, parent in enumerate(parents):
        if not -1 <= parent < len(parents):
            raise TreeError(OUT_OF_RANGE.format(node, tree, parent, len(parents)))
    for node, parent in enumerate(parents):
        if parent == node:
            raise TreeError(OWN_PARENT.format(node, tree))
    roots = [node for node, parent in enumerate(parents) if parent == -1]
    if len(roots) > 1:
        raise TreeError(SECOND_ROOT.format(roots[1], tree, roots[0]))
    if parents and not roots:
        raise TreeError(NO_ROOT.format(tree, len(parents)))
    lost = _first_lost(parents)
    if lost is not None:
        raise TreeError(CYCLE.format(lost, tree))


def _first_lost(parents: list[int]) -> int | None:
    """The first node from which no path leads to the root."""
    walk_of = [-1] * len(parents)
    for first in range(len(parents)):
        node = first
        while node >= 0 and walk_of[node] < 0:
            walk_of[node] = first
            node = parents[node]
        if node >= 0 and walk_of[node] == first:
            return first
    return None
