import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

FORMULAS = {
    kb.Sigmoid: lambda x: 1 / (1 + np.exp(-x)),
    kb.Tanh: lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    kb.Rectifier: lambda x: np.where(x > 0, x, 0),
}
FLOAT32 = 1e-6  # one function of one element

every_nonlinearity = pytest.mark.parametrize("block", FORMULAS)


@every_nonlinearity
def test_a_nonlinearity_is_its_formula(block):
    x = np.linspace(-5, 5, 24, dtype="float32").reshape(2, 3, 4)
    np.testing.assert_allclose(block()(x), FORMULAS[block](x), rtol=FLOAT32, atol=FLOAT32)


@every_nonlinearity
def test_a_nonlinearity_keeps_the_rows_of_a_ragged_tensor(block):
    x = tf.ragged.constant([[1.0, -2.0], [], [0.5]])
    y = block()(x)
    assert y.row_lengths().numpy().tolist() == [2, 0, 1]
    np.testing.assert_allclose(y.values, FORMULAS[block](x.values.numpy()), rtol=FLOAT32)


@every_nonlinearity
def test_a_nonlinearity_hands_the_mask_on(block):
    x = kb.Embedding(5, 2, mask_zero=True)(np.array([[1, 0, 2]]))
    assert block()(x)._keras_mask.numpy().tolist() == [[True, False, True]]


def test_far_from_zero_nothing_overflows():
    x = np.array([-1e4, 1e4], "float32")
    assert kb.Sigmoid()(x).numpy().tolist() == [0, 1]
    assert kb.Tanh()(x).numpy().tolist() == [-1, 1]
    assert kb.Rectifier()(x).numpy().tolist() == [0, 1e4]


def test_the_rectifier_passes_the_gradient_above_zero_and_cuts_it_below():
    x = tf.constant([-1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = kb.Rectifier()(x)
    assert tape.gradient(y, x).numpy().tolist() == [0, 1]


def test_integers_stay_what_they_are_under_the_rectifier():
    assert kb.Rectifier()(keras.ops.array([-1, 3])).numpy().tolist() == [0, 3]
