"""Map: what the layer gives for each step, called on the step alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb

OTHER_ORDER = 1e-5  # float32, sums in another order

LAYERS = {
    "dense": ((4,), lambda: layers.Dense(3)),
    "stack": ((4,), lambda: kb.Stacked([kb.Vanilla(3), layers.LayerNormalization()])),
    "convolution": ((6, 5, 2), lambda: layers.Conv2D(3, 2)),
    "recurrence": ((5, 4), lambda: kb.GRU(3)),
    "stock_recurrence": ((5, 4), lambda: layers.LSTM(3, return_sequences=True)),
    "flatten": ((2, 3), lambda: layers.Flatten()),
    "pooling": ((5, 4), lambda: kb.GlobalAveragePooling()),
    "model": ((4,), lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2)])),
}
each_layer = pytest.mark.parametrize(("shape", "make"), LAYERS.values(), ids=LAYERS)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@each_layer
@pytest.mark.parametrize("lengths", [[3, 0, 2], [0, 0], []], ids=str)
def test_each_step_of_ragged_rows_gives_what_it_gives_alone(shape, make, lengths):
    mapped = kb.Map(make())
    x = tf.RaggedTensor.from_row_lengths(normal(sum(lengths), *shape), lengths)
    y = mapped(x)
    assert y.row_lengths().numpy().tolist() == lengths
    assert mapped.compute_output_shape((None, None, *shape))[2:] == tuple(y.shape[2:])
    for step, given in zip(x.values, y.values, strict=True):
        alone = mapped.layer(step[tf.newaxis])[0]
        np.testing.assert_allclose(given, alone, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@each_layer
def test_dense_steps_give_what_time_distributed_gives(shape, make):
    mapped = kb.Map(make())
    x = normal(2, 3, *shape)
    expected = layers.TimeDistributed(mapped.layer)
    y = mapped(x)
    np.testing.assert_allclose(y, expected(x), rtol=OTHER_ORDER, atol=OTHER_ORDER)
    assert mapped(np.zeros((2, 0, *shape), "float32")).shape == (2, 0, *y.shape[2:])


def test_a_mask_of_steps_goes_on_and_one_within_the_steps_reaches_the_layer():
    mapped = kb.Map(layers.LSTM(3))
    x = normal(2, 3, 5, 4)
    outer = np.array([[True, True, False], [True, False, False]])
    x_with_mask = tf.constant(x)
    x_with_mask._keras_mask = tf.constant(outer)
    np.testing.assert_array_equal(mapped(x_with_mask)._keras_mask, outer)
    within = np.arange(5) < np.array([[5, 2, 1], [3, 4, 0]])[..., None]
    y = mapped(x, mask=within)
    expected = layers.TimeDistributed(mapped.layer)(x, mask=tf.constant(within))
    np.testing.assert_allclose(y, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    np.testing.assert_array_equal(y._keras_mask, [[True, True, True], [True, True, False]])


def test_symbols_say_what_real_calls_give():
    for ragged in (False, True):
        x = keras.Input((None, 6, 5, 2), ragged=ragged)
        y = kb.Map(layers.Conv2D(3, 2))(x)
        assert (y.shape, y.ragged) == ((None, None, 5, 4, 3), ragged)


def test_training_reaches_the_layer_and_its_losses_come_out():
    mapped = kb.Map(layers.Dropout(0.5, seed=1))
    rows = tf.RaggedTensor.from_row_lengths(np.ones((20, 4), "float32"), [12, 8])
    assert np.all(mapped(rows).values == 1)
    assert not np.all(mapped(rows, training=True).values == 1)
    regularized = kb.Map(layers.Dense(2, kernel_regularizer="l2"))
    regularized(rows)
    assert len(regularized.losses) == 1


def test_what_is_no_layer_or_no_sequence_is_refused():
    with pytest.raises(TypeError, match="Map: `layer` must be a Keras layer"):
        kb.Map(np.tanh)
    with pytest.raises(ValueError, match=r"Map: the input must be \(batch, time, ...\)"):
        kb.Map(layers.Dense(2))(np.zeros(3))
