"""The inputs of trees against one another: parents, features of nodes or leaves, edges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.values import refuse

Arrays = Mapping[str, np.ndarray]


def check_trees(contract: Contract, inputs: Arrays) -> None:
    """Checks that parents are those of trees, and that what belongs to these trees fits them.

    Args:
        contract: what the inputs must be.
        inputs: the flat arrays; dtypes, shapes and row splits were checked already.

    Raises:
        ContractError: names the input, tree and node.
    """
    for spec in contract.inputs:
        if spec.tree_of is not None:
            _check_same_rows(spec, spec.tree_of, inputs)
            parents, splits = _rows(spec.name, inputs)
            check_parents(spec.name, parents, splits, spec.max_children, spec.forest)
    # Only behind sound parents, wherever they stand among the inputs.
    for spec in contract.inputs:
        if spec.leaves_of is not None:
            _check_leaves(spec, spec.leaves_of, inputs)
        if spec.edges_of is not None:
            _check_same_rows(spec, spec.edges_of, inputs)
            _check_edges(spec, spec.edges_of, inputs)


def leaves(parents: np.ndarray, row_splits: np.ndarray) -> np.ndarray:
    """How many nodes without children each tree has.

    Example:
        >>> leaves(np.array([-1, 0, 0, -1]), np.array([0, 3, 3, 4])).tolist()
        [2, 0, 1]
    """
    in_batch = parents + row_splits[:-1][rows_of(row_splits)]
    is_leaf = np.ones(len(parents), dtype=bool)
    is_leaf[in_batch[parents >= 0]] = False
    return np.bincount(rows_of(row_splits)[is_leaf], minlength=len(row_splits) - 1)


def _rows(name: str, inputs: Arrays) -> tuple[np.ndarray, np.ndarray]:
    return inputs[name].astype(np.int64), inputs[f"{name}.row_splits"]


def _check_same_rows(spec: TensorSpec, other: str, inputs: Arrays) -> None:
    splits, others = inputs[spec.row_splits_name], inputs[f"{other}.row_splits"]
    if not np.array_equal(splits, others):
        row = int(np.argmax(splits != others)) - 1  # both start at 0
        raise refuse(
            spec.row_splits_name,
            f"tree {row} has {splits[row + 1] - splits[row]} nodes, but '{other}' has "
            f"{others[row + 1] - others[row]} there; both must have the same rows",
        )


def _check_leaves(spec: TensorSpec, parents: str, inputs: Arrays) -> None:
    given = np.diff(inputs[spec.row_splits_name])
    expected = leaves(*_rows(parents, inputs))
    wrong = given != expected
    if wrong.any():
        tree = int(wrong.argmax())
        raise refuse(
            spec.row_splits_name,
            f"row {tree} has {given[tree]} steps, but tree {tree} of '{parents}' has "
            f"{expected[tree]} leaves (nodes that are no parent), and each of them has one",
        )


def _check_edges(spec: TensorSpec, parents: str, inputs: Arrays) -> None:
    edges, splits = _rows(spec.name, inputs)
    above, _ = _rows(parents, inputs)
    below_a_node = above >= 0
    if spec.edge_labels is not None:
        unknown = below_a_node & ((edges < 0) | (edges >= spec.edge_labels))
        if unknown.any():
            node = int(unknown.argmax())
            raise refuse(
                spec.name,
                f"{place(node, splits)} has the label {edges[node]}, "
                f"expected 0 to {spec.edge_labels - 1}",
            )
    if spec.siblings_differ:
        _check_siblings(spec, edges, (above + splits[:-1][rows_of(splits)]), below_a_node, splits)


def _check_siblings(
    spec: TensorSpec,
    edges: np.ndarray,
    parent: np.ndarray,
    below_a_node: np.ndarray,
    splits: np.ndarray,
) -> None:
    nodes = np.flatnonzero(below_a_node)
    # Sorted, siblings of one label are neighbours, the earlier node first.
    nodes = nodes[np.lexsort((nodes, edges[nodes], parent[nodes]))]
    first, second = nodes[:-1], nodes[1:]
    same = (parent[first] == parent[second]) & (edges[first] == edges[second])
    if same.any():
        pair = int(same.argmax())
        node, twin = int(second[pair]), int(first[pair])
        raise refuse(
            spec.name,
            f"{place(node, splits)} has the label {edges[node]}, as its sibling "
            f"{place(twin, splits)} has; the children of a node have labels of their own",
        )


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
