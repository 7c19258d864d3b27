import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.mechanisms.tree_cell import Children, TreeCell
from keras_blocks.mechanisms.tree_layer_cell import LayerCell

EXACT = 1e-7


def children(values, owner, slot=None, nodes=3):
    index = None if slot is None else tf.constant(slot, tf.int64)
    states = (tf.constant(values, tf.float32),)
    return Children(states, tf.constant(owner, tf.int64), index, tf.constant(nodes, tf.int64))


def test_children_are_summed_counted_and_placed():
    # Node 0 has the children 10 and 20, node 2 the child 30, node 1 none.
    some = children([[10.0], [30.0], [20.0]], owner=[0, 2, 0], slot=[0, 0, 1])
    np.testing.assert_array_equal(some.sum(some.states[0]), [[30], [0], [30]])
    np.testing.assert_array_equal(some.number(), [[2], [0], [1]])
    np.testing.assert_array_equal(some.of_owner(tf.constant([[1], [2], [3]])), [[1], [3], [1]])
    table = some.slots(some.states[0], 2)
    np.testing.assert_array_equal(table[..., 0], [[10, 20], [0, 0], [30, 0]])


@pytest.mark.parametrize("cell", [kb.ChildSumTreeLSTMCell(3), kb.NaryTreeLSTMCell(3, 2)])
def test_the_short_cut_for_leaves_is_a_call_without_children(cell):
    features = tf.random.normal([5, 4])
    cell.build((None, 4))
    for short, called in zip(cell.leaves(features), TreeCell.leaves(cell, features), strict=True):
        np.testing.assert_allclose(short, called, atol=EXACT)


def test_the_forget_gate_starts_open_unless_told_otherwise():
    for unit_forget_bias, expected in (True, 1), (False, 0):
        cell = kb.ChildSumTreeLSTMCell(2, unit_forget_bias=unit_forget_bias)
        cell.build((None, 3))
        np.testing.assert_array_equal(cell.bias, [0] * 6 + [expected] * 2)
    bare = kb.NaryTreeLSTMCell(2, 3, use_bias=False)
    bare.build((None, 3))
    assert [tuple(weight.shape) for weight in bare.weights] == [(3, 8), (6, 12)]
    assert bare.leaves(tf.zeros([1, 3]))[0].shape == (1, 2)


def test_cells_keep_every_argument_in_their_config():
    arguments = {
        "units": 3,
        "use_bias": False,
        "unit_forget_bias": False,
        "kernel_initializer": "zeros",
        "recurrent_initializer": "ones",
        "bias_initializer": "ones",
        "kernel_regularizer": "l2",
        "recurrent_regularizer": "l1",
        "bias_regularizer": "l2",
        "dtype": "float64",
    }
    for cell in kb.ChildSumTreeLSTMCell(**arguments), kb.NaryTreeLSTMCell(arity=4, **arguments):
        config = cell.get_config()
        assert arguments.keys() <= config.keys()
        assert type(cell).from_config(config).get_config() == config
    assert config["arity"] == 4


def test_regularizers_count_in_the_loss():
    cell = kb.ChildSumTreeLSTMCell(2, kernel_regularizer="l2", recurrent_regularizer="l2")
    layer = kb.TreeRecursive(cell)
    layer.build([(None, None, 3), (None, None)])
    assert len(layer.losses) == 3


def test_weights_have_the_documented_shapes():
    cell = kb.NaryTreeLSTMCell(5, arity=3)
    cell.build((None, 7))
    assert cell.kernel.shape == (7, 20)
    assert cell.recurrent_kernel.shape == (15, 30)
    assert cell.bias.shape == (20,)


@pytest.mark.parametrize("units", [0, -1, 2.5, "3"])
def test_units_must_be_a_positive_integer(units):
    with pytest.raises(ValueError, match="`units` must be a positive integer"):
        kb.ChildSumTreeLSTMCell(units)


def test_arity_must_be_a_positive_integer():
    with pytest.raises(ValueError, match="`arity` must be a positive integer"):
        kb.NaryTreeLSTMCell(3, arity=0)


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
