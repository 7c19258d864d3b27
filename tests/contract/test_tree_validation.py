from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.feeds import flat_inputs
from keras_blocks.contract.tree_validation import check_trees, leaves
from keras_blocks.errors import ContractError

INPUTS = {
    "nodes": TensorSpec("nodes", "int32", ("nodes.values",), ragged=True),
    "parents": TensorSpec(
        "parents", "int32", ("parents.values",), ragged=True, tree_of="nodes", max_children=2
    ),
    "words": TensorSpec("words", "int32", ("words.values",), ragged=True, leaves_of="parents"),
    "labels": TensorSpec(
        "labels", "int32", ("labels.values",), ragged=True, edges_of="parents", edge_labels=3
    ),
    "slots": TensorSpec(
        "slots",
        "int8",
        ("slots.values",),
        ragged=True,
        edges_of="parents",
        edge_labels=2,
        siblings_differ=True,
    ),
}
# What belongs to the parents stands before them, and has to wait for them.
CONTRACT = Contract(tuple(INPUTS[n] for n in ("words", "labels", "slots", "parents", "nodes")), ())
ROWS = {
    "nodes": [[7], [], [7, 7, 7, 7]],
    "parents": [[-1], [], [1, -1, 1, 2]],
    "words": [[4], [], [5, 6]],
    "labels": [[99], [], [2, -1, 0, 0]],
    "slots": [[99], [], [1, -7, 0, 1]],
}


def check(**changes):
    check_trees(CONTRACT, flat_inputs(CONTRACT, {**ROWS, **changes}))


def test_inputs_that_fit_their_trees_are_accepted_whatever_stands_at_roots():
    check()


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        (
            {"words": [[4], [], [5, 6, 7]]},
            "words.row_splits",
            r"row 2 has 3 steps, but tree 2 of 'parents' has 2 leaves",
        ),
        ({"words": [[], [], [5, 6]]}, "words.row_splits", r"row 0 has 0 steps.* has 1 leaves"),
        ({"words": [[4], [1], [5, 6]]}, "words.row_splits", r"row 1 has 1 steps.* has 0 leaves"),
        (
            {"nodes": [[7], [7], [7, 7, 7]]},
            "parents.row_splits",
            r"tree 1 has 0 nodes, but 'nodes' has 1 there",
        ),
        (
            {"labels": [[9], [], [2, 0, 0]]},
            "labels.row_splits",
            r"tree 2 has 3 nodes, but 'parents' has 4 there",
        ),
        (
            {"labels": [[9], [], [2, -1, 0, 3]]},
            "labels",
            r"node 3 of tree 2 has the label 3, expected 0 to 2",
        ),
        ({"labels": [[9], [], [-1, -1, 0, 1]]}, "labels", r"node 0 of tree 2 has the label -1"),
        (
            {"slots": [[9], [], [1, 1, 1, 1]]},
            "slots",
            r"node 2 of tree 2 has the label 1, as its sibling node 0 of tree 2 has",
        ),
        ({"slots": [[9], [], [1, 9, 2, 0]]}, "slots", r"node 2 .* label 2, expected 0 to 1"),
        ({"parents": [[-1], [], [1, -1, 1, 3]]}, "parents", r"node 3 of tree 2 .*cycle"),
        ({"parents": [[-1], [], [1, -1, 1, 1]]}, "parents", r"node 1 of tree 2 has 3 children"),
        ({"parents": [[-1], [], [1, -1, -1, 2]]}, "parents", r"2 roots .*exactly one expected"),
    ],
)
def test_what_does_not_fit_is_refused_by_input_tree_and_node(changes, name, message):
    with pytest.raises(ContractError, match=message) as raised:
        check(**changes)
    assert raised.value.input_name == name


def test_parents_with_rows_of_their_own_need_no_features_of_nodes():
    alone = TensorSpec("parents", "int64", ("parents.values",), ragged=True, tree_of="parents")
    contract = Contract((alone,), ())
    check_trees(contract, flat_inputs(contract, {"parents": [[-1, 0], []]}))
    with pytest.raises(ContractError, match="2 roots"):
        check_trees(contract, flat_inputs(contract, {"parents": [[-1, -1]]}))


def test_twins_are_found_among_many_siblings_in_any_order():
    specs = INPUTS["parents"], INPUTS["slots"]
    parents, slots = replace(specs[0], tree_of="parents"), replace(specs[1], edge_labels=None)
    contract = Contract((replace(parents, max_children=None), slots), ())
    rows = {"parents": [[-1, 0, 0, 0, 1]], "slots": [[0, 2, 0, 1, 2]]}
    check_trees(contract, flat_inputs(contract, rows))
    rows["slots"][0][3] = 2
    with pytest.raises(ContractError, match=r"node 3 of tree 0 .* its sibling node 1 of tree 0"):
        check_trees(contract, flat_inputs(contract, rows))


TREE = st.integers(0, 7).flatmap(
    lambda n: st.tuples(*(st.integers(-1, node - 1) for node in range(n)))
)


@given(st.lists(TREE, max_size=4))
def test_leaves_are_the_nodes_that_are_nobodys_parent(trees):
    splits = np.cumsum([0, *map(len, trees)])
    flat = np.array([parent for tree in trees for parent in tree], dtype="int64")
    expected = [sum(node not in tree for node in range(len(tree))) for tree in trees]
    assert leaves(flat, splits).tolist() == expected
