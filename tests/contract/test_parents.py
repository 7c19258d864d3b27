import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_blocks.contract.tree_validation import check_parents
from keras_blocks.errors import ContractError


def is_tree(parents):
    """The definition, node by node: empty, or one root that every node reaches."""
    if not parents:
        return True
    if parents.count(-1) != 1 or any(not -1 <= p < len(parents) for p in parents):
        return False
    for node in range(len(parents)):
        for _ in parents:
            node = parents[node] if parents[node] != -1 else node
        if parents[node] != -1:
            return False
    return True


def accepted(trees):
    splits = np.cumsum([0, *map(len, trees)])
    flat = np.array([p for tree in trees for p in tree], dtype="int32")
    try:
        check_parents("parents", flat, splits)
    except ContractError:
        return False
    return True


MAYBE_TREE = st.integers(0, 6).flatmap(
    lambda n: st.lists(st.integers(-1, max(n - 1, -1)), min_size=n, max_size=n)
)


@given(st.lists(MAYBE_TREE, max_size=3))
def test_exactly_the_trees_of_the_definition_are_accepted(trees):
    assert accepted(trees) == all(map(is_tree, trees))


@given(st.permutations(range(7)), st.data())
def test_a_tree_is_accepted_in_any_order_of_its_nodes(order, data):
    parents = [-1] * 7
    for position in range(1, 7):
        parents[order[position]] = order[data.draw(st.integers(0, position - 1))]
    assert accepted([[-1], parents, []])


def test_a_chain_of_a_hundred_thousand_nodes_is_a_tree_until_it_is_closed():
    chain = np.arange(-1, 100_000)
    check_parents("parents", chain, np.array([0, len(chain)]))
    chain[1] = len(chain) - 1
    with pytest.raises(ContractError, match="cycle"):
        check_parents("parents", chain, np.array([0, len(chain)]))


def test_the_error_counts_nodes_within_their_own_tree():
    splits = np.array([0, 2, 2, 5])
    with pytest.raises(ContractError, match="node 1 of tree 2 has parent 3, but the tree has 3"):
        check_parents("parents", np.array([-1, 0, -1, 3, 0]), splits)
    with pytest.raises(ContractError, match="tree 2 has 2 roots"):
        check_parents("parents", np.array([-1, 0, -1, -1, 0]), splits)
    with pytest.raises(ContractError, match="node 1 of tree 2 does not reach the root"):
        check_parents("parents", np.array([-1, 0, -1, 2, 1]), splits)


def test_a_node_with_more_children_than_the_model_takes_is_refused_by_name():
    parents, splits = np.array([-1, -1, 0, 0, 0]), np.array([0, 1, 5])
    check_parents("parents", parents, splits, max_children=3)
    with pytest.raises(ContractError, match="node 0 of tree 1 has 3 children, at most 2 expected"):
        check_parents("parents", parents, splits, max_children=2)


def test_a_row_may_have_several_roots_where_forests_are_allowed_but_not_none():
    forest, splits = np.array([-1, 0, -1, -1]), np.array([0, 3, 3, 4])
    check_parents("parents", forest, splits, forest=True)
    with pytest.raises(ContractError, match=r"tree 0 has 2 roots .* exactly one expected"):
        check_parents("parents", forest, splits)
    with pytest.raises(ContractError, match=r"tree 0 has 0 roots .* at least one expected"):
        check_parents("parents", np.array([1, 0, 1, -1]), splits, forest=True)
    with pytest.raises(ContractError, match="node 1 of tree 0 does not reach the root"):
        check_parents("parents", np.array([-1, 2, 1, -1]), splits, forest=True)
