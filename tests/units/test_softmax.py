import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

FLOAT32 = 1e-6  # a few exponentials and one division


def _softmax(x):
    """Of one vector, by the formula."""
    exponentials = [np.exp(element - max(x)) for element in x]
    return np.array([e / sum(exponentials) for e in exponentials])


def test_softmax_makes_probabilities_of_the_last_axis():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    y = kb.Softmax()(x)
    for b, t in np.ndindex(2, 3):
        np.testing.assert_allclose(y[b, t], _softmax(x[b, t]), rtol=FLOAT32)


def test_softmax_along_another_axis():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    y = kb.Softmax(axis=1)(x)
    for b, f in np.ndindex(2, 4):
        np.testing.assert_allclose(y[b, :, f], _softmax(x[b, :, f]), rtol=FLOAT32)


def test_softmax_does_not_overflow():
    assert kb.Softmax()(np.array([[1e4, -1e4]], "float32")).numpy().tolist() == [[1, 0]]


def test_a_mask_leaves_elements_out_of_the_sum():
    x = np.array([[1.0, 2.0, 3.0]], "float32")
    y = kb.Softmax()(x, mask=np.array([[True, False, True]]))
    low, high = _softmax([1.0, 3.0])
    np.testing.assert_allclose(y, [[low, 0, high]], rtol=FLOAT32)


def test_the_mask_of_a_sequence_leaves_steps_out():
    tokens = np.array([[3, 0, 1], [2, 4, 0]])
    x = kb.Embedding(5, 4, mask_zero=True)(tokens)
    y = kb.Softmax()(x)
    for b, t in np.ndindex(2, 3):
        expected = _softmax(x[b, t].numpy()) if tokens[b, t] else np.zeros(4)
        np.testing.assert_allclose(y[b, t], expected, rtol=FLOAT32)
    over_time = kb.Softmax(axis=1)(x).numpy()
    np.testing.assert_allclose(over_time[0, [0, 2], 1], _softmax(x.numpy()[0, [0, 2], 1]), 1e-6)
    assert over_time[0, 1, 1] == 0


def test_softmax_over_the_steps_of_each_ragged_row():
    rows = [[1.0, 2.0, -1.0], [], [5.0]]
    y = kb.Softmax()(tf.ragged.constant(rows))
    assert y.row_lengths().numpy().tolist() == [3, 0, 1]
    np.testing.assert_allclose(y[0], _softmax(rows[0]), rtol=FLOAT32)
    assert y[2].numpy().tolist() == [1]


def test_softmax_over_time_of_ragged_vectors_takes_each_feature_by_itself():
    values = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    y = kb.Softmax(axis=1)(tf.RaggedTensor.from_row_splits(values, [0, 3, 3, 5]))
    for start, end in [(0, 3), (3, 5)]:
        for f in range(2):
            expected = _softmax(values[start:end, f])
            np.testing.assert_allclose(y.values[start:end, f], expected, rtol=FLOAT32)


def test_softmax_over_the_features_of_ragged_vectors():
    values = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
    y = kb.Softmax()(tf.RaggedTensor.from_row_splits(values, [0, 3, 3, 5]))
    for step in range(5):
        np.testing.assert_allclose(y.values[step], _softmax(values[step]), rtol=FLOAT32)


def test_the_gradient_of_an_empty_row_is_empty_and_no_other_is_nan():
    values = tf.constant([1.0, 2.0, 3.0])
    with tf.GradientTape() as tape:
        tape.watch(values)
        y = kb.Softmax()(tf.RaggedTensor.from_row_splits(values, [0, 2, 2, 3]))
        loss = tf.reduce_sum(y.values**2)
    gradient = tf.convert_to_tensor(tape.gradient(loss, values))
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("axis", [0, -3, 2, [0, 1]])
def test_softmax_refuses_an_axis_that_a_ragged_batch_does_not_have(axis):
    with pytest.raises(ValueError, match="has the axes 1 to 1 to sum along"):
        kb.Softmax(axis=axis)(tf.ragged.constant([[1.0, 2.0], [3.0]]))
