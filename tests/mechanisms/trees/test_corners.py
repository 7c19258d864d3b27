"""Cells and batches at the edge of what `TreeRecursive` promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks import trees

ROUNDING = 1e-6  # float32, sums in another order
PARENTS = tf.ragged.constant([[-1, 0, 0, 1, 1], [2, 2, -1], [-1], [1, 2, 3, -1]])
FEATURES = PARENTS.with_values(tf.random.stateless_normal([13, 3], [1, 2]))


def test_statistics_of_a_lifted_layer_stay_sound_on_the_way_down():
    norm = keras.layers.BatchNormalization()
    layer = keras.Sequential([keras.layers.Dense(3), norm])
    down = kb.TreeRecursive(layer, direction="down", return_nodes=True)
    parents = tf.ragged.constant([[1, -1]])
    down([parents.with_values(tf.ones([2, 3])), parents], training=True)
    assert np.isfinite(norm.moving_mean).all()


@pytest.mark.parametrize(
    "cell", [kb.TreeGRUCell(4), kb.ChildSumTreeLSTMCell(4), kb.NaryTreeLSTMCell(4, 3)]
)
def test_the_gradient_of_a_gradient_is_the_same_in_training(cell):
    layer = kb.TreeRecursive(cell)
    layer([FEATURES, PARENTS])

    def second(training):
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                values = tf.identity(FEATURES.values)
                inner.watch(values)
                roots = layer([FEATURES.with_values(values), PARENTS], training=training)
                loss = tf.reduce_sum(roots**2)
            slope = tf.reduce_sum(tf.convert_to_tensor(inner.gradient(loss, values)) ** 2)
        weights = [weight.value for weight in layer.trainable_variables]
        return outer.gradient(slope, weights, unconnected_gradients="zero")

    for training, resting in zip(second(True), second(False), strict=True):
        np.testing.assert_allclose(training, resting, atol=ROUNDING)


class Plain(kb.NaryTreeLSTMCell):
    """As a class of its own it has no gradient written out."""


@pytest.mark.parametrize("arity", [3, 4])
@pytest.mark.parametrize(
    "options",
    [
        {"features_on": "leaves"},
        {"features_on": "leaves", "return_nodes": True},
        {"recurrent_dropout": 0.5, "seed": 1, "return_nodes": True},
        {"recurrent_dropout": 0.5, "seed": 1},
    ],
)
@pytest.mark.parametrize("use_bias", [True, False])
def test_the_written_out_gradient_of_n_ary_cells_is_tensorflows(arity, options, use_bias):
    features = FEATURES
    if "features_on" in options:
        features = tf.RaggedTensor.from_row_lengths(FEATURES.values[:7], [3, 2, 1, 1])
    keras.utils.set_random_seed(0)
    cells = [kind(4, arity, use_bias=use_bias) for kind in (kb.NaryTreeLSTMCell, Plain)]
    layers = [kb.TreeRecursive(cell, **options) for cell in cells]
    for layer in layers:
        layer.build([features.shape, PARENTS.shape])
    layers[1].set_weights(layers[0].get_weights())
    gradients = []
    for layer in layers:
        with tf.GradientTape() as tape:
            tape.watch(features.values)
            vectors = layer([features, PARENTS], training=True)
            vectors = vectors.values if options.get("return_nodes") else vectors
            loss = tf.reduce_sum(vectors * tf.range(1.0, 5.0))
        points = [features.values, *(weight.value for weight in layer.trainable_variables)]
        gradients.append([loss, *map(tf.convert_to_tensor, tape.gradient(loss, points))])
    for written_out, general in zip(*gradients, strict=True):
        np.testing.assert_allclose(written_out, general, atol=10 * ROUNDING)
    assert all(np.abs(gradient).max() > 0.01 for gradient in gradients[0])


class Twice(kb.ChildSumTreeLSTMCell):
    """A user's cell that goes through another cell two times."""

    def call(self, inputs, children):
        return super().call(inputs, super().call(inputs, children))


def test_a_subclass_of_a_cell_may_use_it_as_often_as_it_likes():
    layer = kb.TreeRecursive(Twice(4))
    resting = layer([FEATURES, PARENTS])
    np.testing.assert_allclose(layer([FEATURES, PARENTS], training=True), resting, atol=ROUNDING)


def test_the_maximum_of_children_may_be_minus_infinity():
    add = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    parents = tf.ragged.constant([[-1, 0]])
    features = parents.with_values(tf.constant([[0.0], [-np.inf]]))
    assert kb.TreeRecursive(add, combine="max")([features, parents]) == -np.inf


def test_a_loss_from_inside_the_loop_is_refused():
    regular = keras.layers.Dense(4, activity_regularizer="l2", name="regular")
    with pytest.raises(ValueError, match="'regular' has an activity_regularizer"):
        kb.TreeRecursive(regular)


def test_a_layer_of_another_dtype_is_refused():
    with pytest.raises(ValueError, match=r"computes in float16.*asks for float32"):
        kb.TreeRecursive(kb.TreeGRUCell(3, dtype="float16"), dtype="float32")


def test_features_must_be_floats_of_the_width_that_was_built():
    layer = kb.TreeRecursive(kb.TreeGRUCell(3))
    layer([FEATURES, PARENTS])
    with pytest.raises(ValueError, match=r"vectors of floats.*Embedding"):
        layer([FEATURES.with_values(tf.ones([13, 3], tf.int32)), PARENTS])
    with pytest.raises(ValueError, match=r"is built for inputs with 3 features"):
        kb.TreeRecursive(layer.cell)([FEATURES.with_values(tf.ones([13, 5])), PARENTS])


def test_numpy_integers_are_integers():
    assert kb.TreeGRUCell(np.int64(3)).units == 3
    assert kb.NaryTreeLSTMCell(np.int32(3), np.int8(2)).arity == 2


@pytest.mark.parametrize(
    "parents", [[[-1, 0]], tf.constant([[-1, 0]]), PARENTS.with_values(tf.ones([13]))]
)
def test_a_schedule_is_made_of_ragged_integers(parents):
    with pytest.raises(ValueError, match="must be a ragged tensor"):
        trees.schedule(parents)
