"""What holds for any trees and any cell, over trees that hypothesis draws.

Each test draws the setting of the layer too; test_tree_recursive goes through all settings with
trees that are fixed.
"""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_cases import KINDS, batches, expected_nodes, expected_roots

FLOAT32 = 1e-5  # single precision against double, up to nine levels deep
SAME_FORMULA = 2e-6  # the same sums in another order

SETTINGS = [{"forests": "sum"}, {"return_nodes": True}] + [
    {"return_nodes": True, "direction": direction, "features_on": features_on}
    for direction, features_on in [("up", "leaves"), ("down", "nodes"), ("both", "leaves")]
]
ON_NODES = [chosen for chosen in SETTINGS if chosen.get("features_on") != "leaves"]
LAYERS = {}

each_kind = pytest.mark.parametrize("name", KINDS)
reproducible = settings(max_examples=6, deadline=None, derandomize=True)
setting = st.sampled_from(SETTINGS)
data = st.data()


def drawn(name, data, chosen, slots=None):
    """A layer of the kind, and a batch for it."""
    key = name, *chosen.items()
    if key not in LAYERS:  # Layers are slow to make, and hypothesis calls often.
        LAYERS[key] = KINDS[name].layer(**chosen)
    layer = LAYERS[key]
    batch = data.draw(batches(KINDS[name], slots, roots=3 if layer.forests == "sum" else 1))
    return layer, batch.on_leaves() if layer.features_on == "leaves" else batch


def flat(vectors):
    return vectors.values if isinstance(vectors, tf.RaggedTensor) else vectors


@each_kind
@reproducible
@given(data=data, chosen=setting)
def test_both_forms_the_scheduled_one_and_the_formula_agree(name, data, chosen):
    layer, batch = drawn(name, data, chosen)
    inference = flat(layer(batch.inputs(), training=False))
    training = flat(layer(batch.inputs(), training=True))
    np.testing.assert_allclose(inference, training, atol=SAME_FORMULA)
    scheduled = flat(layer(batch.inputs(scheduled=True, forests=layer.forests)))
    np.testing.assert_allclose(inference, scheduled, atol=SAME_FORMULA)
    if layer.return_nodes:
        nothing = np.zeros((0, inference.shape[1]))
        expected = np.concatenate([nothing, *expected_nodes(layer, KINDS[name], batch)])
    else:
        expected = expected_roots(layer, KINDS[name], batch)
    np.testing.assert_allclose(inference, expected, atol=FLOAT32)


@each_kind
@reproducible
@given(data=data, chosen=setting)
def test_a_tree_in_a_batch_gives_what_it_gives_alone(name, data, chosen):
    layer, batch = drawn(name, data, chosen)
    together = layer(batch.inputs())
    for tree in range(len(batch.parents)):
        alone = layer(batch.alone(tree).inputs())
        of_tree = flat(together[tree : tree + 1])
        np.testing.assert_allclose(flat(alone), of_tree, atol=SAME_FORMULA)


@each_kind
@reproducible
@given(data=data, chosen=st.sampled_from(ON_NODES), seed=st.integers(0, 99))
def test_permuted_nodes_give_the_permuted_vectors(name, data, chosen, seed):
    # Where there are slots they are given: the order of the nodes would say other ones.
    layer, batch = drawn(name, data, chosen, slots=True)
    permuted, orders = batch.permuted(np.random.default_rng(seed))
    expected, result = layer(batch.inputs()), layer(permuted.inputs())
    if not layer.return_nodes:
        np.testing.assert_allclose(result, expected, atol=SAME_FORMULA)
        return
    for got, want, order in zip(result, expected, orders, strict=True):
        np.testing.assert_allclose(got, want.numpy()[order], atol=SAME_FORMULA)
