import numpy as np
import pytest
from tree_samples import WIDEST, Forest, chains, functions, sentences, wide


def levels_one_by_one(forest):
    parents = forest.global_parents
    levels = []
    for node in range(forest.nodes):
        level = 0
        while parents[node] >= 0:
            node, level = parents[node], level + 1
        levels.append(level)
    return levels


def test_sentences_are_binary_and_as_large_and_deep_as_parses():
    forest = sentences(400)
    assert set(forest.children) == {0, 2}
    facts = forest.facts()
    assert facts["mean nodes"] == pytest.approx(37, abs=2)
    assert facts["mean levels"] == pytest.approx(10, abs=0.7)


def test_levels_are_the_steps_to_the_root_in_any_order_of_nodes():
    forest = Forest.of([[2, 2, 4, 4, -1], [-1], [-1, 0, 1, 1, 0]])
    assert forest.level.tolist() == levels_one_by_one(forest)
    drawn = sentences(5)
    assert drawn.level.tolist() == levels_one_by_one(drawn)


def test_chains_and_wide_trees_have_the_shape_that_was_asked_for():
    assert chains(3, 7).facts() == {
        "trees": 3, "nodes": 21, "mean nodes": 7, "mean levels": 7, "levels": 7, "widest": 1,
    }  # fmt: skip
    forest = wide(5, arity=4, inner=6)
    assert set(forest.children) == {0, 4}
    assert forest.nodes == 5 * (1 + 4 * 6)


def test_functions_of_the_standard_library_reach_the_widest_node():
    facts = functions(30).facts()
    assert facts["trees"] == 30
    assert 30 < facts["widest"] <= WIDEST


def test_batches_are_the_same_trees():
    forest = sentences(7)
    batches = forest.batches(3)
    assert [batch.trees for batch in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([b.parents for b in batches]), forest.parents)
