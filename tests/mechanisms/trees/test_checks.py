"""Malformed trees are refused by name, eagerly and in a graph with the same words."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_cases import KINDS, LABELS, UNITS, WIDTH, Batch, batch_of, ragged, random_rows

import keras_blocks as kb
from keras_blocks import trees
from keras_blocks.errors import TreeError

FEATURES = tf.RaggedTensorSpec([None, None, WIDTH], tf.float32, 1, tf.int64)
NODES = tf.RaggedTensorSpec([None, None], tf.int32, 1, tf.int64)
SCHEDULE = tf.RaggedTensorSpec([None, None, 6], tf.int32, 1, tf.int64)

LAYERS = {
    "plain": (lambda: kb.NaryTreeLSTMCell(UNITS, 2), {}, [FEATURES, NODES]),
    "slots": (lambda: kb.NaryTreeLSTMCell(UNITS, 2), {}, [FEATURES, NODES, NODES]),
    "labels": (KINDS["child_sum_labels"].cell, {}, [FEATURES, NODES, NODES]),
    "leaves": (KINDS["gru"].cell, {"features_on": "leaves"}, [FEATURES, NODES]),
    "forests": (KINDS["gru"].cell, {"forests": "sum"}, [FEATURES, NODES]),
    "scheduled": (lambda: kb.NaryTreeLSTMCell(UNITS, 2), {}, [FEATURES, SCHEDULE]),
    "scheduled_leaves": (KINDS["gru"].cell, {"features_on": "leaves"}, [FEATURES, SCHEDULE]),
}
MADE = {}


def layer_and_graph(name):
    """The layer called eagerly and in a graph; both are slow to make."""
    if name not in MADE:
        cell, settings, specs = LAYERS[name]
        layer = kb.TreeRecursive(cell(), **settings)
        layer.build([spec.shape for spec in specs])
        MADE[name] = layer, tf.function(lambda *x: layer(x), specs, autograph=False)
    return MADE[name]


def assert_refused(name, inputs, message):
    """Both forms refuse the inputs and say so."""
    layer, graph = layer_and_graph(name)
    with pytest.raises(TreeError, match=f"TreeRecursive: {message}"):
        layer(inputs)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"TreeRecursive: {message}"):
        graph(*inputs)


MALFORMED = {
    "a parent out of range": (
        [[-1], [-1, 0, 5]],
        "node 2 of tree 1 has parent 5, but the tree has 3 nodes",
    ),
    "a parent below -1": ([[-1, -2]], "node 1 of tree 0 has parent -2"),
    "a node that is its own parent": ([[-1, 0], [-1, 1]], "node 1 of tree 1 is its own parent"),
    "two roots": ([[-1], [-1, 0, 0], [-1, 0, -1]], "node 2 of tree 2 is a second root"),
    "no root": ([[], [-1], [1, 0]], "tree 2 has no root"),
    # Without any root there is no first one to name.
    "a lone node that is its own parent": ([[0]], "node 0 of tree 0 is its own parent"),
    "no root in any tree": ([[1, 0]], "tree 0 has no root"),
    "a cycle": ([[-1, 0, 3, 2], [-1]], "node 2 of tree 0 never reaches the root"),
    "a node below a cycle": ([[-1, 2, 3, 2], [-1]], "node 1 of tree 0 never reaches the root"),
    "too many children": (
        [[-1], [1, -1, 1, 1]],
        "node 1 of tree 1 has 3 children, but the cell takes 2",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_trees_are_refused_by_name(kind):
    rows, message = MALFORMED[kind]
    assert_refused("plain", batch_of(rows).inputs(), message)


in_pipeline = tf.function(trees.schedule, [NODES], autograph=False)


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_malformed_has_no_schedule(kind):
    rows, message = MALFORMED[kind]
    features, parents = batch_of(rows).inputs()
    if kind == "too many children":  # The cell's arity is not known before the layer.
        assert_refused("scheduled", [features, trees.schedule(parents)], message)
        return
    with pytest.raises(TreeError, match=message):
        trees.schedule(parents)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        in_pipeline(parents)


def test_a_forest_is_a_tree_with_several_roots_and_with_no_other_fault():
    for kind, (rows, message) in MALFORMED.items():
        if kind not in ("two roots", "too many children"):
            assert_refused("forests", batch_of(rows).inputs(), message)
    layer, graph = layer_and_graph("forests")
    inputs = batch_of(MALFORMED["two roots"][0]).inputs()
    np.testing.assert_allclose(layer(inputs), graph(*inputs), atol=1e-6)


UNEQUAL = {
    (3, 1): "tree 1 has features for 2 nodes, but parents for 1",
    (2, 3): "tree 0 has features for 3 nodes, but parents for 2",
    (3, 2, 1): "the features hold 2 trees, but the parents 3",
}


@pytest.mark.parametrize("lengths", UNEQUAL)
def test_rows_of_unequal_length_are_refused_by_name(lengths):
    features = batch_of(random_rows([3, 2])).inputs()[0]
    parents = batch_of(random_rows(lengths)).inputs()[1]
    assert_refused("plain", [features, parents], UNEQUAL[lengths])
    assert_refused("scheduled", [features, trees.schedule(parents)], UNEQUAL[lengths])


@pytest.mark.parametrize("name", ["slots", "labels"])
def test_edges_of_unequal_length_are_refused_by_name(name):
    features, parents = batch_of(random_rows([3, 2], arity=2)).inputs()
    edges = tf.ragged.constant([[0, 1, 0], [0]])
    assert_refused(
        name, [features, parents, edges], "tree 1 has edges for 1 nodes, but parents for 2"
    )
    edges = tf.ragged.constant([[0, 1, 0]])
    assert_refused(name, [features, parents, edges], "the edges hold 1 trees, but the parents 2")


BAD_LEAVES = {
    (1, 1): "tree 0 has features for 1 leaves, but it has 2",
    (2, 2): "tree 1 has features for 2 leaves, but it has 1",
    (2, 1, 0): "the features hold 3 trees, but the parents 2",
}


@pytest.mark.parametrize("name", ["leaves", "scheduled_leaves"])
@pytest.mark.parametrize("lengths", BAD_LEAVES)
def test_features_that_are_not_those_of_the_leaves_are_refused_by_name(lengths, name):
    features = ragged([np.zeros((n, WIDTH)) for n in lengths], "float32", WIDTH)
    parents = tf.ragged.constant([[-1, 0, 0], [1, -1]], dtype=tf.int32)
    given = trees.schedule(parents) if name == "scheduled_leaves" else parents
    assert_refused(name, [features, given], BAD_LEAVES[lengths])


BAD_SLOTS = {
    "too high": ([[0], [0, 0, 2]], "node 2 of tree 1 has slot 2 .* but the cell has 2 slots"),
    "negative": ([[0], [0, -1, 0]], "node 1 of tree 1 has slot -1 .* but the cell has 2 slots"),
    "the same twice": ([[0], [0, 1, 1]], "node 2 of tree 1 has slot 1 .*, as node 1 has"),
}


@pytest.mark.parametrize("kind", BAD_SLOTS)
def test_slots_that_are_no_slots_are_refused_by_name(kind):
    slots, message = BAD_SLOTS[kind]
    features, parents = batch_of([[-1], [-1, 0, 0]]).inputs()
    assert_refused("slots", [features, parents, tf.ragged.constant(slots)], message)


def test_cousins_and_roots_may_have_the_same_slot():
    layer, graph = layer_and_graph("slots")
    features, parents = batch_of([[-1, 0, 0, 1, 2], [-1], [-1]]).inputs()
    slots = tf.ragged.constant([[1, 0, 1, 1, 1], [5], [5]])
    np.testing.assert_allclose(
        layer([features, parents, slots]), graph(features, parents, slots), atol=1e-6
    )


@pytest.mark.parametrize("label", [-1, LABELS])
def test_labels_that_the_cell_does_not_know_are_refused_by_name(label):
    features, parents = batch_of([[-1], [1, -1, 1]]).inputs()
    edges = tf.ragged.constant([[label], [0, label, label]])  # those of the roots mean nothing
    message = f"node 2 of tree 1 has the edge label {label}, but the cell knows 3 labels"
    assert_refused("labels", [features, parents, edges], message)


def stale(lengths, change):
    """Features with the rows of a schedule that was changed after it was made."""
    schedule = change(trees.schedule(batch_of(random_rows(lengths, arity=2)).inputs()[1]))
    features = ragged(
        [np.zeros((n, WIDTH)) for n in schedule.row_lengths().numpy()], "float32", WIDTH
    )
    return [features, schedule]


STALE = {
    "a tree left out": lambda schedule: schedule[1:],
    "a tree twice": lambda schedule: tf.concat([schedule, schedule[:1]], axis=0),
    "two batches": lambda schedule: tf.concat([schedule, schedule], axis=0),
    "a node left out": lambda schedule: schedule[:, 1:],
    # Features on leaves would go to the leaves of other trees.
    "trees in another order": lambda schedule: tf.gather(schedule, [2, 0, 1]),
}


@pytest.mark.parametrize("kind", STALE)
def test_the_schedule_of_another_batch_is_refused(kind):
    inputs = stale([4, 3, 5], STALE[kind])
    assert_refused("scheduled", inputs, "node .* this is the schedule of another batch")


def test_a_forest_is_refused_by_a_layer_for_trees_though_its_schedule_was_made():
    batch = batch_of(MALFORMED["two roots"][0])
    inputs = batch.inputs(scheduled=True, forests="sum")
    assert_refused("scheduled", inputs, MALFORMED["two roots"][1])


def test_malformed_trees_stop_fit_and_predict_with_their_name():
    features = keras.Input((None, WIDTH), ragged=True)
    parents = keras.Input((None,), dtype="int32", ragged=True)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(UNITS))([features, parents])
    model = keras.Model([features, parents], root)
    model.compile(loss="mse")
    inputs = batch_of([[-1], [-1, 0, 7]]).inputs()
    with pytest.raises(tf.errors.InvalidArgumentError, match="node 2 of tree 1 has parent 7"):
        model.predict(inputs, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="node 2 of tree 1 has parent 7"):
        model.fit(inputs, np.zeros((2, UNITS)), shuffle=False, verbose=0)


def fault_of(parents, arity):
    """What is wrong with these parents as the documentation says, or None; written anew."""
    nodes = range(len(parents))
    if any(p < -1 or p >= len(parents) for p in parents):
        return "has parent"
    if any(parents[k] == k for k in nodes):
        return "its own parent"
    if sum(p == -1 for p in parents) > 1:
        return "second root"
    if parents and -1 not in parents:
        return "no root"
    for node in nodes:
        for _ in nodes:
            node = parents[node] if node >= 0 else -1
        if node != -1:
            return "never reaches"
    return "children" if any(parents.count(k) > arity for k in nodes) else None


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows=st.lists(st.lists(st.integers(-2, 4), max_size=5), max_size=3))
def test_any_integers_are_computed_or_refused_for_the_right_reason(rows):
    batch = batch_of(rows)
    layer, graph = layer_and_graph("plain")
    # Faults are looked for in this order, each in all trees.
    order = ["has parent", "its own parent", "second root", "no root", "never reaches", "children"]
    faults = sorted(filter(None, (fault_of(row, arity=2) for row in rows)), key=order.index)
    if faults:
        assert_refused("plain", batch.inputs(), f".*{faults[0]}")
    else:
        np.testing.assert_allclose(layer(batch.inputs()), graph(*batch.inputs()), atol=1e-6)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(slots=st.lists(st.integers(-1, 3), min_size=6, max_size=6))
def test_any_slots_are_taken_or_refused(slots):
    parents = np.array([-1, 0, 0, 1, 1, 2])
    batch = Batch([parents], batch_of([parents]).features, [np.array(slots)])
    outside = any(not 0 <= slot < 2 for slot in slots[1:])
    if outside:
        assert_refused("slots", batch.inputs(), "node .* has slot .* the cell has 2 slots")
    elif slots[1] == slots[2] or slots[3] == slots[4]:
        assert_refused("slots", batch.inputs(), "node .* has slot .*, as node .* has")
    else:
        layer, graph = layer_and_graph("slots")
        np.testing.assert_allclose(layer(batch.inputs()), graph(*batch.inputs()), atol=1e-6)
