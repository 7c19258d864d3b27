"""The samples hold the cases that break exporters, and nothing that a model may not be given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pytest

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.sampling.plans import DENSE_PLANS, LARGER_PLANS, MOST_IDS
from keras_blocks.contract.sampling.random_trees import SHAPES, random_parents
from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.errors import ExportError

LEAST = 75  # of a deep backbone
OUTPUT = (TensorSpec("y", "float32", ("batch", 3)),)


def drawn(*inputs: TensorSpec, seed: int = 0) -> list:
    return list(draw_samples(Contract(inputs, OUTPUT), seed))


def ids(maximum: int = 49, **rest) -> TensorSpec:
    return TensorSpec("ids", "int32", ("batch", "ids.time"), minimum=0, maximum=maximum, **rest)


SEQUENCE = TensorSpec("x", "float32", ("batch", "x.time", 4))
RAGGED = TensorSpec("x", "float32", ("x.values", 4), ragged=True)
TOKENS = TensorSpec("tokens", "int32", ("tokens.values",), True, minimum=0, maximum=9)
PARENTS = TensorSpec("parents", "int32", ("parents.values",), True, minimum=-1, tree_of="tokens")


def rows(sample, name: str) -> list[np.ndarray]:
    splits = sample.feed[f"{name}.row_splits"]
    return np.split(sample.feed[name], splits[1:-1]) if len(splits) > 1 else []


def test_dense_samples_vary_batch_and_time():
    shapes = [sample.shapes["x"] for sample in drawn(SEQUENCE)]
    assert {1, 2, 3, 5, 7} <= {shape[0] for shape in shapes}
    assert {1, 2, 3, 7, 16, 17} <= {shape[1] for shape in shapes}
    assert {shape[2] for shape in shapes} == {4}


def test_equal_dim_names_have_equal_sizes_and_others_differ_in_some_sample():
    mask = TensorSpec("mask", "bool", ("batch", "x.time"))
    samples = drawn(SEQUENCE, mask, ids())
    for sample in samples:
        assert sample.shapes["x"][:2] == sample.shapes["mask"]
        assert sample.shapes["x"][0] == sample.shapes["ids"][0]
    assert any(s.shapes["x"][1] != s.shapes["ids"][1] for s in samples)


def test_a_fixed_batch_is_kept_to():
    fixed = TensorSpec("x", "float32", (4, "x.time", 2))
    ragged = TensorSpec("r", "float32", ("r.values",), ragged=True)
    samples = drawn(fixed, ragged)
    assert {sample.shapes["x"][0] for sample in samples} == {4}
    assert {sample.shapes["r.row_splits"][0] for sample in samples} == {5}


def test_a_model_of_one_fixed_shape_gets_several_samples_only_if_they_differ():
    fixed = TensorSpec("x", "float32", (2, 3))
    descriptions = [sample.description for sample in drawn(fixed)]
    assert descriptions == ["the one shape", "floats times 10"]


def test_ragged_samples_hold_empty_rows_single_steps_and_no_rows():
    lengths = [[len(row) for row in rows(sample, "x")] for sample in drawn(RAGGED)]
    assert [] in lengths
    assert [0] in lengths
    assert any(len(found) > 1 and not any(found) for found in lengths)
    assert any(found and found[0] == 0 and any(found) for found in lengths)
    assert any(found and found[-1] == 0 and any(found) for found in lengths)
    assert [1, 1, 1] in lengths
    assert max(max(found, default=0) for found in lengths) > 32


def test_ragged_inputs_that_are_not_tied_have_other_rows_in_some_sample():
    other = TensorSpec("z", "float32", ("z.values",), ragged=True)
    samples = drawn(RAGGED, other)
    for sample in samples:
        assert len(rows(sample, "x")) == len(rows(sample, "z"))
    assert any(not np.array_equal(s.feed["x.row_splits"], s.feed["z.row_splits"]) for s in samples)


def test_row_splits_rise_from_zero_to_the_number_of_values():
    for sample in drawn(RAGGED):
        splits = sample.feed["x.row_splits"]
        assert splits.dtype == np.int64
        assert splits[0] == 0
        assert splits[-1] == len(sample.feed["x"])
        assert (np.diff(splits) >= 0).all()


def test_ids_stay_within_their_bounds_and_reach_both():
    values = np.concatenate([sample.feed["ids"].ravel() for sample in drawn(ids(maximum=49))])
    assert values.dtype == np.int32
    assert (values.min(), values.max()) == (0, 49)


@pytest.mark.parametrize("spec", [ids(maximum=299), TOKENS], ids=["dense", "ragged"])
def test_one_sample_holds_every_id_in_short_rows(spec):
    last = drawn(spec)[-1]
    assert set(last.feed[spec.name].ravel()) == set(range(int(spec.maximum) + 1))
    steps = (
        np.diff(last.feed[f"{spec.name}.row_splits"]) if spec.ragged else [last.shapes["ids"][1]]
    )
    assert max(steps) <= 3


def test_a_huge_vocabulary_is_sampled_not_enumerated():
    assert max(sample.feed["ids"].size for sample in drawn(ids(maximum=10**7))) <= MOST_IDS + 3


def test_masked_steps_stand_in_front_between_at_the_end_and_over_whole_rows():
    patterns = set()
    for sample in drawn(ids(maximum=10**6)):  # so many ids that a zero was put there
        for row in sample.feed["ids"] != 0:
            kept = np.flatnonzero(row)
            if not len(kept):
                patterns.add("all")
            elif kept[0] > 0:
                patterns.add("front")
            elif kept[-1] < len(row) - 1:
                patterns.add("tail")
            elif not row.all():
                patterns.add("between")
            else:
                patterns.add("none")
    assert patterns == {"all", "front", "tail", "between", "none"}


def test_masked_steps_of_ragged_rows_stay_within_their_row():
    spec = TensorSpec("x", "float32", ("x.values", 4), ragged=True)
    blank = [s for s in drawn(spec) if "zeros at the end" in s.description]
    assert [list(row.any(axis=-1)) for row in rows(blank[0], "x")] == [[True, True, True], [True]]
    whole = [s for s in drawn(spec) if "rows of zeros" in s.description]
    assert [bool(row.any()) for row in rows(whole[0], "x")] == [True, False, True]


def test_no_zero_is_put_where_zero_is_not_allowed():
    spec = TensorSpec("x", "int32", ("batch", "x.time"), minimum=3, maximum=5)
    assert min(sample.feed["x"].min() for sample in drawn(spec)) == 3


def test_floats_keep_to_bounds_and_dtype():
    spec = TensorSpec("x", "float16", ("batch", 4), minimum=0.0, maximum=1.0)
    values = np.concatenate([sample.feed["x"] for sample in drawn(spec)])
    assert values.dtype == np.float16
    assert values.min() >= 0
    assert 0.9 < values.max() <= 1


def test_the_same_seed_gives_the_same_samples():
    first, again, other = (drawn(SEQUENCE, ids(), seed=seed) for seed in (1, 1, 2))
    for a, b in zip(first, again, strict=True):
        assert a.description == b.description
        for name in a.feed:
            np.testing.assert_array_equal(a.feed[name], b.feed[name])
    assert any(
        not np.array_equal(a.feed["x"], b.feed["x"]) for a, b in zip(first, other, strict=True)
    )


def test_large_samples_are_left_out():
    picture = TensorSpec("x", "float32", ("batch", 512, 512, 3))
    assert {sample.shapes["x"][0] for sample in drawn(picture)} == {1, 2}


def test_larger_samples_are_there_for_models_that_refuse_small_ones():
    contract = Contract((TensorSpec("x", "float32", ("batch", "x.time", "x.axis2", 3)),), OUTPUT)
    sizes = [s.shapes["x"][1] for s in draw_samples(contract, plans=LARGER_PLANS)]
    assert min(sizes) > 40
    assert max(sizes) >= 224


def test_sizes_count_from_the_least_that_the_contract_knows():
    image = TensorSpec("x", "float32", ("batch", "x.time", "x.axis2", 3), least=(0, 10, LEAST, 0))
    shapes = [sample.shapes["x"] for sample in drawn(image)]
    assert min(height for _, height, _, _ in shapes) == 10
    assert min(width for _, _, width, _ in shapes) == LEAST
    assert any("pixels" in sample.description for sample in drawn(image))


@pytest.mark.parametrize("plans", [DENSE_PLANS, LARGER_PLANS], ids=["usual", "larger"])
@pytest.mark.parametrize("least", [0, LEAST])
def test_some_images_are_no_squares_even_behind_strides(plans, least):
    image = TensorSpec("x", "float32", ("batch", "x.time", "x.axis2", 3), least=(0, least, least))
    shapes = [s.shapes["x"] for s in draw_samples(Contract((image,), OUTPUT), plans=plans)]
    assert any(height // 4 != width // 4 for _, height, width, _ in shapes)


def test_strings_cannot_be_drawn():
    with pytest.raises(ExportError, match=r"input 'x' of dtype string.*check_parity"):
        drawn(TensorSpec("x", "string", ("batch",)))


def test_trees_have_the_rows_of_their_features_and_are_trees():
    samples = drawn(TOKENS, PARENTS)
    for sample in samples:
        np.testing.assert_array_equal(
            sample.feed["tokens.row_splits"], sample.feed["parents.row_splits"]
        )
        for tree in rows(sample, "parents"):
            assert_is_tree(tree)
    assert {word for s in samples for word in SHAPES if word in s.description} == set(SHAPES)


WORDS = replace(TOKENS, name="words", shape=("words.values",), leaves_of="parents")
OF_LEAVES = replace(PARENTS, tree_of="parents")


def test_words_on_leaves_are_as_many_as_the_drawn_trees_have_leaves():
    for order in ((WORDS, OF_LEAVES), (OF_LEAVES, WORDS)):
        samples = drawn(*order)
        for sample in samples:
            trees = rows(sample, "parents")
            leaves = [len(set(range(len(tree))) - set(tree)) for tree in trees]
            assert [len(row) for row in rows(sample, "words")] == leaves
        assert set(samples[-1].feed["words"]) == set(range(10)), "every id once"
    assert any("zeros in front" in sample.description for sample in samples)


@pytest.mark.parametrize("siblings_differ", [False, True])
def test_edges_have_labels_below_nodes_and_none_at_roots(siblings_differ):
    edges = TensorSpec(
        "edges",
        "int32",
        ("edges.values",),
        ragged=True,
        edges_of="parents",
        edge_labels=4,
        siblings_differ=siblings_differ,
    )
    below, at_roots, crowded = set(), set(), 0
    for sample in drawn(edges, TOKENS, replace(PARENTS, max_children=4)):
        assert sample.feed["edges"].dtype == np.int32
        for tree, above in zip(rows(sample, "parents"), rows(sample, "edges"), strict=True):
            assert len(tree) == len(above)
            below |= set(above[tree >= 0])
            at_roots |= set(above[tree < 0])
            siblings = list(zip(tree[tree >= 0], above[tree >= 0], strict=True))
            crowded += len(siblings) - len(set(siblings))
    assert below == {0, 1, 2, 3}
    assert at_roots == {-1, 4}, "what is no label shows that none is read there"
    assert (crowded == 0) == siblings_differ


def test_edges_that_are_ids_too_keep_to_their_bounds_at_roots():
    edges = TensorSpec("edges", "int32", ("edges.values",), True, 0, 3, edges_of="parents")
    values = np.concatenate([s.feed["edges"] for s in drawn(TOKENS, PARENTS, edges)])
    assert set(values) == {0, 1, 2, 3}


def test_forests_have_one_root_or_several_where_there_are_nodes():
    counts = set()
    for sample in drawn(TOKENS, replace(PARENTS, forest=True)):
        for tree in rows(sample, "parents"):
            counts.add(int((tree == -1).sum()))
            assert_is_tree(tree, roots=counts if len(tree) else {0})
        assert "trees" not in sample.description
    assert counts == {0, 1, 2, 3}


def assert_is_tree(parents: np.ndarray, roots: Collection[int] = (0, 1)) -> None:
    assert int((parents == -1).sum()) in roots
    assert (parents == -1).any() == (len(parents) > 0)
    for node in range(len(parents)):
        steps = 0
        while node != -1:
            node, steps = parents[node], steps + 1
            assert steps <= len(parents), "a cycle"


@pytest.mark.parametrize("nodes", [0, 1, 2, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_random_trees_have_the_asked_shape(shape, nodes):
    for seed in range(20):
        parents = random_parents(nodes, shape, np.random.default_rng(seed))
        assert_is_tree(parents)
        children = np.bincount(parents[parents >= 0], minlength=max(nodes, 1))
        if shape == "chain":
            assert children.max(initial=0) <= 1
        elif shape == "binary":
            assert children.max(initial=0) <= 2
        elif shape == "star":
            assert children.max(initial=0) == max(nodes - 1, 0)


def test_random_trees_put_their_nodes_in_any_order():
    roots = {
        int(np.flatnonzero(random_parents(6, "chain", np.random.default_rng(s)) == -1)[0])
        for s in range(40)
    }
    assert roots == set(range(6))


def test_an_unknown_shape_of_tree_is_refused():
    with pytest.raises(ValueError, match=r"one of .*Received: shape='bush'"):
        random_parents(3, "bush", np.random.default_rng(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_random_trees_give_no_node_more_children_than_allowed(shape):
    for most in (1, 2, 3):
        parents = random_parents(40, shape, np.random.default_rng(5), max_children=most)
        assert np.bincount(parents[parents >= 0]).max() <= most
        assert (parents == -1).sum() == 1


def test_integers_without_bounds_are_small_ids_and_in_one_sample_large_and_negative():
    spread = {}
    for sample in drawn(TensorSpec("n", "int32", ("batch", "n.time"))):
        low, high = spread.get("large" in sample.description, (0, 0))
        values = sample.feed["n"]
        spread["large" in sample.description] = min(low, values.min()), max(high, values.max())
    assert spread == {False: (0, 7), True: (-70, 70)}
