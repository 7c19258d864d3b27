"""The cells by themselves, and the layer that makes a cell of any other layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tree_cases import KINDS, UNITS, WIDTH, batch_of, random_rows

import keras_blocks as kb
from keras_blocks.mechanisms.trees.cells.base import Children, TreeCell
from keras_blocks.mechanisms.trees.cells.layer import LayerCell
from keras_blocks.mechanisms.trees.levels import RowRange
from keras_blocks.mechanisms.trees.messages import ChildReduction
from keras_blocks.mechanisms.trees.schedule import schedule

EXACT = 1e-7  # float32, the same sums in the same order


def plan_of(*parents):
    """The schedule of one tree."""
    return schedule(tf.ragged.constant([parents], dtype=tf.int64))


def tables(kind, arity, places, *rounds):
    """The tables of three nodes after some rounds of messages (children, 1)."""
    combination = ChildReduction(kind, arity, plan_of(-1))
    filled = [combination.empty(tf.constant([3], tf.int64), tf.zeros([0, 1]))]
    for place, messages in zip(places, rounds, strict=True):
        sent = tf.constant(messages, tf.float32)[:, None]
        filled = combination.put(filled, tf.constant(place, tf.int64), sent)
    return filled[0]


def test_messages_are_summed_placed_and_their_greatest_is_found():
    # Node 0 gets 10 and -20, node 2 gets -30, and another -5 in a second round; node 1 nothing.
    places, sent = [[[0], [2], [0]], [[2]]], ([10.0, -30.0, -20.0], [-5.0])
    np.testing.assert_array_equal(tables("sum", None, places, *sent)[:, 0], [-10, 0, -35])
    np.testing.assert_array_equal(tables("max", None, places, *sent)[::2, 0], [10, -5])
    slots = [[[0, 0], [2, 1], [0, 1]], [[2, 0]]]
    table = tables("sum", 2, slots, *sent)
    np.testing.assert_array_equal(table[..., 0], [[10, -20], [0, 0], [-5, -30]])


def test_a_mean_is_over_the_children_that_are_there():
    both = RowRange(tf.constant([0], tf.int64), tf.constant([2], tf.int64))
    combination = ChildReduction("mean", None, plan_of(-1, 0, 0, 1))
    mean = combination.read([tf.constant([[6.0], [3.0]])], both, tf.zeros([0, 1]))
    np.testing.assert_array_equal(mean, [[3], [3]])


def test_children_read_the_rows_of_their_parents():
    some = Children((tf.zeros([3, 1]),), tf.constant([[1], [0], [1]], tf.int64), None)
    np.testing.assert_array_equal(some.of_owner(tf.constant([[5], [6]])), [[6], [5], [6]])


CELLS = {
    "child_sum": lambda: kb.ChildSumTreeLSTMCell(UNITS),
    "child_sum_labels": lambda: kb.ChildSumTreeLSTMCell(UNITS, edge_labels=2),
    "n_ary": lambda: kb.NaryTreeLSTMCell(UNITS, 2),
    "gru": lambda: kb.TreeGRUCell(UNITS),
}


@pytest.mark.parametrize("name", CELLS)
def test_the_short_cut_for_leaves_is_a_call_without_children(name):
    features = tf.random.normal([5, WIDTH])
    cell = CELLS[name]()
    cell.build((None, WIDTH))
    pairs = zip(
        keras.tree.flatten(cell.leaves(features)),
        keras.tree.flatten(TreeCell.leaves(cell, features)),
        strict=True,
    )
    for short, called in pairs:
        np.testing.assert_allclose(short, called, atol=EXACT)


def test_the_forget_gate_starts_open_unless_told_otherwise():
    for unit_forget_bias, expected in (True, 1), (False, 0):
        cell = kb.ChildSumTreeLSTMCell(2, unit_forget_bias=unit_forget_bias)
        cell.build((None, 3))
        np.testing.assert_array_equal(cell.bias, [0] * 6 + [expected] * 2)


BARE = {
    "child_sum": (lambda: kb.ChildSumTreeLSTMCell(4, use_bias=False), [(4, 16), (4, 12), (4, 4)]),
    "n_ary": (lambda: kb.NaryTreeLSTMCell(4, 3, use_bias=False), [(4, 16), (12, 24)]),
    "gru": (lambda: kb.TreeGRUCell(4, use_bias=False), [(4, 12), (4, 12)]),
    "tensor": (lambda: kb.RecursiveTensorCell(4, 3, use_bias=False), [(4, 12, 12), (12, 4)]),
}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", BARE)
def test_no_bias_is_a_bias_of_zero(name, training):
    make, shapes = BARE[name]
    bare, full = kb.TreeRecursive(make()), KINDS[name].layer()
    inputs = batch_of(random_rows([5, 0, 1, 7], arity=3)).inputs()
    bare(inputs)
    assert [tuple(weight.shape) for weight in bare.cell.weights] == shapes
    full.cell.bias.assign(tf.zeros_like(full.cell.bias))
    weights = [weight for weight in full.cell.weights if weight.name != "bias"]
    bare.cell.set_weights([weight.numpy() for weight in weights])
    np.testing.assert_allclose(
        bare(inputs, training=training), full(inputs, training=training), atol=EXACT
    )


def test_a_tree_gru_over_a_chain_is_the_gru():
    layer = KINDS["gru"].layer()
    features, parents = batch_of([[1, 2, 3, -1]]).inputs()
    gru = kb.GRU(UNITS)
    gru.build((None, None, WIDTH))
    kernel, bias, recurrent = layer.get_weights()
    # The GRU's gates are z, r, h; the tree's z, u, r.
    order = np.concatenate([np.arange(4), np.arange(8, 12), np.arange(4, 8)])
    gru.set_weights([kernel[:, order], recurrent[:, order], bias[order]])
    np.testing.assert_allclose(layer([features, parents]), gru(features.to_tensor()), atol=1e-6)


def test_the_bilinear_form_of_the_tensor_cell_is_one_number_for_each_unit():
    cell = kb.RecursiveTensorCell(2, activation=None, use_bias=False)
    cell.build((None, 2))
    tensor = np.zeros((2, 4, 4))
    tensor[0, 0, 3] = 1  # the first unit: the first child's first times the second's second
    tensor[1, 1, 1] = 1  # the second unit: the square of the first child's second
    cell.set_weights([tensor, np.zeros((4, 2))])
    met = cell.call(tf.zeros([1, 2]), children=tf.constant([[[2.0, 3.0], [5.0, 7.0]]]))
    np.testing.assert_allclose(met, [[2 * 7, 3 * 3]])


def test_the_tensor_cell_wants_features_as_wide_as_its_vectors():
    with pytest.raises(ValueError, match=r"the width units=4. Received: width 3"):
        kb.RecursiveTensorCell(4).build((None, 3))


INITIALIZED = {
    "use_bias": False,
    "recurrent_initializer": "ones",
    "bias_initializer": "ones",
    "recurrent_regularizer": "l1",
    "bias_regularizer": "l2",
    "dtype": "float64",
}
GATED = {"units": 3, "kernel_initializer": "zeros", "kernel_regularizer": "l2", **INITIALIZED}
CONFIGS = {
    kb.ChildSumTreeLSTMCell: {**GATED, "unit_forget_bias": False, "edge_labels": 5},
    kb.NaryTreeLSTMCell: {**GATED, "unit_forget_bias": False, "arity": 4},
    kb.TreeGRUCell: GATED,
    kb.RecursiveTensorCell: {
        "units": 3,
        "arity": 4,
        "activation": "relu",
        "tensor_initializer": "zeros",
        "tensor_regularizer": "l2",
        **INITIALIZED,
    },
}


@pytest.mark.parametrize("kind", CONFIGS, ids=lambda kind: kind.__name__)
def test_cells_keep_every_argument_in_their_config(kind):
    config = kind(**CONFIGS[kind]).get_config()
    assert CONFIGS[kind].keys() <= config.keys()
    assert config["units"] == 3
    again = kind.from_config(config)
    assert again.get_config() == config
    for name, value in CONFIGS[kind].items():
        kept = getattr(again, name, None)
        assert kept == value or not isinstance(value, int | bool), name


def test_weights_have_the_documented_shapes():
    cells = {
        kb.ChildSumTreeLSTMCell(5, edge_labels=6): [(7, 20), (20,), (5, 15), (5, 5), (6, 20)],
        kb.NaryTreeLSTMCell(5, arity=3): [(7, 20), (20,), (15, 30)],
        kb.TreeGRUCell(5): [(7, 15), (15,), (5, 15)],
        kb.RecursiveTensorCell(7, arity=3): [(7, 21, 21), (21, 7), (7,)],
    }
    for cell, shapes in cells.items():
        cell.build((None, 7))
        assert [tuple(weight.shape) for weight in cell.weights] == shapes


def test_every_cell_takes_positive_integers_only():
    for value in 0, -1, 2.5, "3", True:
        for kind in CONFIGS:
            arity = {"arity": 2} if "arity" in CONFIGS[kind] else {}
            with pytest.raises(ValueError, match=f"{kind.__name__}: `units` must be a positive"):
                kind(value, **arity)
        for kind in kb.NaryTreeLSTMCell, kb.RecursiveTensorCell:
            with pytest.raises(ValueError, match="`arity` must be a positive integer"):
                kind(3, arity=value)
        with pytest.raises(ValueError, match="`edge_labels` must be a positive integer"):
            kb.ChildSumTreeLSTMCell(3, edge_labels=value)


class Shapeless(keras.layers.Layer):
    """A user's layer that does not compute its output shape."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def call(self, x):
        return self.dense(x)

    def get_config(self):
        return {"units": self.units, **super().get_config()}


def functional():
    x = keras.Input((4 + 2 * 3,))
    return keras.Model(x, keras.layers.Dense(3)(keras.layers.Dense(6, "tanh")(x)))


def used():
    dense = keras.layers.Dense(3)
    dense(tf.zeros([1, 4 + 2 * 3]))
    return dense


LAYERS = {
    "a block": lambda: kb.Vanilla(3),
    "a user's layer": Shapeless,
    "a sequential model": lambda: keras.Sequential(
        [keras.layers.Dense(6, "relu"), keras.layers.Dense(3)]
    ),
    "a functional model": functional,
    "a layer that was used before": used,
}


@pytest.mark.parametrize("kind", LAYERS)
def test_any_layer_gives_the_width_of_its_states(kind):
    layer = LAYERS[kind]()
    cell = LayerCell(layer, arity=2)
    cell.build((None, 4))
    assert cell.state_size == 3
    weights = layer.get_weights()
    assert weights[0].shape[0] == 4 + 2 * 3
    features = tf.random.normal([2, 4])
    expected = layer(tf.concat([features, tf.zeros([2, 6])], axis=-1))
    np.testing.assert_allclose(cell.leaves(features), expected, atol=EXACT)


@pytest.mark.parametrize("combine", ["sum", "mean", "max"])
def test_one_vector_for_all_children_needs_one_slot(combine):
    cell = LayerCell(keras.layers.Dense(3), combine=combine)
    cell.build((None, 4))
    assert cell.layer.kernel.shape == (4 + 3, 3)
    assert cell.get_config()["combine"] == combine


def test_a_layer_of_another_width_or_rank_is_refused():
    with pytest.raises(ValueError, match=r"4 \+ 5 \* 3 = 19"):
        LayerCell(functional(), arity=5).build((None, 4))
    with pytest.raises(ValueError, match="must give vectors"):
        LayerCell(keras.layers.Reshape((1, -1)), arity=1).build((None, 4))


def test_a_cell_without_a_call_says_what_is_missing():
    class Empty(TreeCell):
        state_size = 3

    with pytest.raises(NotImplementedError, match=r"call\(self, inputs, children\)"):
        Empty().build((None, 4))


def test_dropout_within_a_cell_works_in_training_and_rests_in_inference():
    inner = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.5, seed=1)])
    layer = kb.TreeRecursive(inner, arity=1)
    parents = tf.ragged.constant([[-1, 0, 1, 2]])
    features = tf.RaggedTensor.from_row_splits(tf.ones([4, 5]), [0, 4])
    step = tf.function(lambda training: layer([features, parents], training=training))
    resting = step(False)
    np.testing.assert_array_equal(step(False), resting)
    assert any(np.abs(step(True) - resting).max() > 0.01 for _ in range(3))
