import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

FLOAT32 = 1e-5  # sums of a few products


def _with_weights(layer, features):
    layer.build((None, features))
    generator = np.random.default_rng(0)
    layer.set_weights([generator.normal(size=w.shape) for w in layer.weights])
    return layer, [w.numpy() for w in layer.weights]


def test_vanilla_is_a_linear_map_and_a_nonlinearity():
    layer, (kernel, bias) = _with_weights(kb.Vanilla(3), 4)
    x = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("float32")
    expected = np.zeros((2, 5, 3))
    for index in np.ndindex(2, 5, 3):
        b, t, u = index
        total = sum(x[b, t, i] * kernel[i, u] for i in range(4)) + bias[u]
        expected[index] = np.tanh(total)
    np.testing.assert_allclose(layer(x), expected, rtol=FLOAT32, atol=FLOAT32)


def test_vanilla_without_a_nonlinearity_is_the_linear_map_alone():
    layer, (kernel,) = _with_weights(kb.Vanilla(3, activation=None, use_bias=False), 4)
    x = np.random.default_rng(1).normal(size=(2, 4)).astype("float32")
    np.testing.assert_allclose(layer(x), x @ kernel, rtol=FLOAT32, atol=FLOAT32)


def test_vanilla_maps_every_step_of_a_ragged_row():
    layer, (kernel, bias) = _with_weights(kb.Vanilla(3), 4)
    values = np.random.default_rng(1).normal(size=(5, 4)).astype("float32")
    y = layer(tf.RaggedTensor.from_row_splits(values, [0, 3, 3, 5]))
    assert y.row_splits.numpy().tolist() == [0, 3, 3, 5]
    np.testing.assert_allclose(y.values, np.tanh(values @ kernel + bias), rtol=FLOAT32)


def test_vanilla_takes_the_keywords_of_dense():
    layer = kb.Vanilla(
        2,
        kernel_initializer="ones",
        bias_initializer="ones",
        kernel_regularizer=keras.regularizers.L2(0.5),
        kernel_constraint="non_neg",
    )
    layer(np.ones((1, 3)))
    assert layer.kernel.numpy().tolist() == [[1, 1]] * 3
    assert [float(loss) for loss in layer.losses] == [0.5 * 6]
    assert layer.kernel.constraint is layer.kernel_constraint


def test_vanilla_shows_its_parts_to_the_mechanisms():
    layer, (kernel, bias) = _with_weights(kb.Vanilla(3, activation="relu"), 4)
    parts = layer.affine_parts()
    np.testing.assert_array_equal(parts[0], kernel)
    np.testing.assert_array_equal(parts[1], bias)
    assert parts[2] is keras.activations.relu


@pytest.mark.parametrize("units", [0, -1, 2.5])
def test_vanilla_refuses_units_that_are_no_positive_integer(units):
    with pytest.raises(ValueError, match="units"):
        kb.Vanilla(units)


def test_vanilla_refuses_features_of_unknown_size():
    with pytest.raises(ValueError, match="the last axis of the input holds the features"):
        kb.Vanilla(3)(tf.ragged.constant([[1.0, 2.0], [3.0]]))


def test_a_regularizer_of_ragged_activities_is_refused():
    rows = tf.RaggedTensor.from_row_splits(np.ones((3, 2), "float32"), [0, 1, 3])
    with pytest.raises(ValueError, match="activity regularizer needs a dense output"):
        kb.Vanilla(3, activity_regularizer="l2")(rows)
