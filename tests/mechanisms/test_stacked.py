"""Stacked: the functional API's chain of layers, on ragged sequences too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb
from keras_blocks.ragged import AcceptsRagged

SAME_SUMS = 1e-6  # float32, the same sums
OTHER_ORDER = 1e-5  # float32, sums in another order: padded, or all rows at once

LENGTHS = [4, 0, 1, 3]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def ragged(lengths=LENGTHS, width=6):
    return tf.RaggedTensor.from_row_lengths(normal(sum(lengths), width), lengths)


def test_the_output_of_each_layer_is_the_input_of_the_next():
    stack = kb.Stacked([kb.Vanilla(4), layers.Dense(3, "relu"), kb.Softmax()])
    x = normal(5, 6)
    outputs = stack(x)
    first_kernel, first_bias, second_kernel, second_bias = stack.get_weights()
    hidden = np.maximum(np.tanh(x @ first_kernel + first_bias) @ second_kernel + second_bias, 0)
    expected = np.exp(hidden) / np.exp(hidden).sum(-1, keepdims=True)
    np.testing.assert_allclose(outputs, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


def test_a_mask_flows_through_the_layers_as_in_the_functional_api():
    inner = [
        layers.Embedding(9, 4, mask_zero=True),
        layers.Dense(3),
        kb.GRU(3, return_sequences=True),
        layers.LSTM(2, return_sequences=True),
    ]
    tokens = keras.Input((None,), dtype="int32")
    y = tokens
    for layer in inner:
        y = layer(y)
    chain = keras.Model(tokens, y)
    stack = kb.Stacked(inner)
    x = np.array([[3, 4, 0, 0], [5, 0, 0, 0], [1, 2, 3, 4]])
    given, expected = stack(x), chain(x)
    np.testing.assert_allclose(given, expected, rtol=SAME_SUMS, atol=SAME_SUMS)
    np.testing.assert_array_equal(given._keras_mask, x != 0)


def test_a_mask_that_comes_from_outside_reaches_the_layers_and_those_behind():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    x = kb.Stacked([layers.Dense(3), layers.GRU(3, return_sequences=True)])(x)
    model = keras.Model(tokens, layers.LSTM(2)(x))
    long, short = np.array([[3, 4, 0, 0]]), np.array([[3, 4]])
    np.testing.assert_allclose(model(long), model(short), rtol=SAME_SUMS, atol=SAME_SUMS)


def test_a_mask_from_inside_reaches_the_layers_behind():
    tokens = keras.Input((None,), dtype="int32")
    x = kb.Stacked([layers.Embedding(9, 4, mask_zero=True), layers.Dense(3)])(tokens)
    model = keras.Model(tokens, layers.LSTM(2)(x))
    long, short = np.array([[3, 4, 0, 0]]), np.array([[3, 4]])
    np.testing.assert_allclose(model(long), model(short), rtol=SAME_SUMS, atol=SAME_SUMS)


def test_a_mask_given_as_an_argument_leaves_the_caller_s_tensor_alone():
    stack = kb.Stacked([layers.Dense(3), layers.LSTM(2)])
    x = tf.constant(normal(2, 4, 6))
    mask = tf.sequence_mask([4, 2])
    np.testing.assert_allclose(
        stack(x, mask=mask)[1], stack(x[1:, :2])[0], rtol=OTHER_ORDER, atol=OTHER_ORDER
    )
    assert getattr(x, "_keras_mask", None) is None


def test_the_mask_ends_where_the_sequence_ends():
    stack = kb.Stacked([layers.Embedding(9, 4, mask_zero=True), layers.LSTM(2), layers.Dense(2)])
    outputs = stack(np.array([[3, 4, 0, 0]]))
    assert getattr(outputs, "_keras_mask", None) is None


def test_training_reaches_the_layers():
    stack = kb.Stacked([layers.Dropout(0.5, seed=1), kb.Stacked([layers.BatchNormalization()])])
    x = normal(8, 6)
    at_rest = stack(x)
    np.testing.assert_allclose(at_rest, x / np.sqrt(1.001), rtol=SAME_SUMS, atol=SAME_SUMS)
    trained = np.asarray(stack(x, training=True))
    np.testing.assert_allclose(trained.mean(0), 0, atol=OTHER_ORDER)
    assert np.any(trained != np.asarray(at_rest))


STOCK = {
    "steps": lambda: [
        layers.Dense(5, "relu"),
        layers.Dropout(0.3),
        layers.LayerNormalization(),
        layers.BatchNormalization(),
        layers.RMSNormalization(),
        layers.UnitNormalization(),
        layers.Rescaling(2.0),
        layers.Normalization(mean=0.5, variance=2.0),
        layers.LeakyReLU(),
        layers.Softmax(),
    ],
    "time_distributed": lambda: [
        layers.TimeDistributed(layers.Dense(3)),
        layers.Activation("tanh"),
    ],
    "lstm": lambda: [layers.LSTM(4), layers.Dense(2)],
    "lstm_backwards_sequence": lambda: [
        layers.LSTM(4, return_sequences=True, go_backwards=True),
        layers.Dense(2),
    ],
    "rnn_of_cells": lambda: [
        layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], return_sequences=True)
    ],
    "bidirectional": lambda: [
        layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        layers.Bidirectional(kb.LSTM(2)),
    ],
    "states": lambda: [layers.Dense(4), layers.LSTM(3, return_sequences=True, return_state=True)],
    "sequential": lambda: [keras.Sequential([layers.Dense(3), layers.SimpleRNN(4)]), kb.Vanilla(2)],
    "mixed": lambda: [
        layers.Dense(4),
        kb.Convolution(kb.Vanilla(3), 2, padding="causal"),
        layers.GRU(3, return_sequences=True),
        kb.MaxPooling(2, padding="same"),
        kb.Recurrence(kb.Vanilla(2), return_sequences=True),
    ],
}


@pytest.mark.parametrize("make", STOCK.values(), ids=STOCK)
def test_a_ragged_row_gives_what_the_dense_row_gives_alone(make):
    stack = kb.Stacked(make())
    x = ragged()
    outputs = keras.tree.flatten(stack(x))
    for row, length in enumerate(LENGTHS):
        if length == 0:
            continue
        alone = keras.tree.flatten(stack(x[row][tf.newaxis]))
        for given, expected in zip(outputs, alone, strict=True):
            assert isinstance(given, tf.RaggedTensor) == (len(expected.shape) == 3)
            np.testing.assert_allclose(given[row], expected[0], rtol=OTHER_ORDER, atol=OTHER_ORDER)


@pytest.mark.parametrize("make", STOCK.values(), ids=STOCK)
def test_ragged_symbols_say_what_real_calls_give(make):
    stack = kb.Stacked(make())
    symbol = keras.Input((None, 6), ragged=True)
    model = keras.Model(symbol, stack(symbol))
    for lengths in (LENGTHS, [0, 0], []):
        outputs = model(ragged(lengths))
        for sign, real in zip(model.outputs, keras.tree.flatten(outputs), strict=True):
            assert sign.ragged == isinstance(real, tf.RaggedTensor)
            assert sign.shape[2:] == tuple(real.shape[2:])
            assert (real.nrows() if sign.ragged else real.shape[0]) == len(lengths)


def test_an_average_over_a_ragged_row_leaves_its_padding_out():
    stack = kb.Stacked([layers.GlobalAveragePooling1D()])
    x = ragged([3, 1])
    expected = [row.numpy().mean(0) for row in x]
    np.testing.assert_allclose(stack(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


def test_a_model_with_a_ragged_input_takes_ragged_rows_and_another_is_refused():
    x = ragged([4, 1, 3])
    sequence = keras.Input((None, 6), ragged=True)
    inner = keras.Model(sequence, kb.GRU(3, return_sequences=True)(kb.Vanilla(4)(sequence)))
    stack = kb.Stacked([inner, kb.GRU(2)])
    expected = stack.layers[1](inner(x))
    np.testing.assert_allclose(stack(x), expected, rtol=SAME_SUMS, atol=SAME_SUMS)
    dense = keras.Input((None, 6))
    with pytest.raises(TypeError, match=r"the model was made for dense ones.*ragged=True"):
        kb.Stacked([keras.Model(dense, kb.Vanilla(2)(dense))])(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.Conv1D(3, 2),
        lambda: layers.MaxPooling1D(2),
        lambda: layers.GlobalMaxPooling1D(),
        lambda: layers.GroupNormalization(2),
        lambda: layers.Softmax(axis=1),
        lambda: layers.UnitNormalization(axis=(1, 2)),
        lambda: layers.Dropout(0.1, noise_shape=(None, 1, 6)),
        lambda: layers.Dense(3, activity_regularizer="l2"),
        lambda: layers.Masking(),
        lambda: keras.Sequential([layers.Conv1D(3, 2)]),
    ],
)
def test_a_stock_layer_that_cannot_be_right_on_ragged_rows_is_refused(make):
    with pytest.raises(TypeError, match="was given a ragged sequence, but this stock layer"):
        kb.Stacked([make()])(ragged())


class Shift(layers.Layer):
    """A user's layer for dense inputs."""

    def call(self, inputs):
        return inputs + 1

    def compute_output_shape(self, input_shape):
        return input_shape


class HeedsMasks(Shift):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True


class RaggedShift(AcceptsRagged, Shift):
    pass


def test_a_user_s_layer_says_how_it_takes_ragged_rows():
    x = ragged()
    with pytest.raises(TypeError, match=r"does not say that it can take one.*AcceptsRagged"):
        kb.Stacked([Shift()])(x)
    for layer in (HeedsMasks(), RaggedShift()):
        outputs = kb.Stacked([layer])(x)
        np.testing.assert_array_equal(outputs.values, x.values + 1)
        np.testing.assert_array_equal(outputs.row_splits, x.row_splits)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "Stacked: `layers` is empty"),
        (kb.Vanilla(2), TypeError, "Stacked: `layers` must be a list of layers"),
        ([kb.Vanilla(2), kb.Vanilla], TypeError, r"`layers\[1\]` must be .* Vanilla\(\.\.\.\)"),
        ([None], TypeError, r"`layers\[0\]` must be a Keras layer. Received: None"),
        ([np.tanh], TypeError, r"`layers\[0\]` .* keras.layers.Lambda"),
    ],
)
def test_what_is_no_list_of_layers_is_refused(given, error, message):
    with pytest.raises(error, match=message):
        kb.Stacked(given)


def test_a_layer_in_two_places_shares_its_weights_also_after_loading(tmp_path):
    twice = kb.Vanilla(4)
    stack = kb.Stacked([kb.Vanilla(4), twice, twice])
    x = keras.Input((3,))
    model = keras.Model(x, stack(x))
    assert len(model.weights) == 4
    model.save(tmp_path / "twice.keras")
    again = keras.saving.load_model(tmp_path / "twice.keras")
    assert len(again.weights) == 4
    data = normal(2, 3)
    np.testing.assert_allclose(again(data), model(data), rtol=SAME_SUMS, atol=SAME_SUMS)


def test_weights_are_named_by_where_they_are():
    stack = kb.Stacked([kb.Vanilla(2, name="first"), kb.Vanilla(2, name="second")], name="deep")
    stack(normal(1, 3))
    assert [weight.path for weight in stack.weights] == [
        "deep/first/kernel",
        "deep/first/bias",
        "deep/second/kernel",
        "deep/second/bias",
    ]


def test_the_first_layer_may_take_several_inputs():
    class Both(layers.Layer):
        def build(self, input_shape):
            self.dense = layers.Dense(2)
            self.dense.build((None, input_shape[0][-1] + input_shape[1][-1]))

        def call(self, inputs):
            return self.dense(keras.ops.concatenate(inputs, axis=-1))

        def compute_output_shape(self, input_shape):
            return (input_shape[0][0], 2)

    stack = kb.Stacked([Both(), kb.Vanilla(4)])
    pair = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(pair, stack(pair))
    assert model.output_shape == (None, 4)
    data = [normal(5, 3), normal(5, 2)]
    np.testing.assert_allclose(model(data), stack(data), rtol=SAME_SUMS, atol=SAME_SUMS)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class WithoutBuild(layers.Layer):
    """A user's layer whose weights come with its first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = kb.Vanilla(4)

    def call(self, inputs):
        return self.inner(inputs)


@pytest.mark.parametrize("make", [lambda: kb.Vanilla(4), WithoutBuild])
def test_a_layer_that_is_lifted_and_called_by_the_model_too_is_loaded(make, tmp_path):
    shared = make()
    x = keras.Input((None, 4))
    lifted = kb.Convolution(kb.Stacked([shared]), 1)
    model = keras.Model(x, [lifted(x), shared(x), kb.Stacked([shared, kb.GRU(3)])(x)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    data = normal(2, 3, 4)
    for found, expected in zip(loaded(data), model(data), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_mean_of_an_empty_row_is_zeros_and_so_is_its_gradient():
    stack, dense = kb.Stacked([layers.GlobalAveragePooling1D()]), kb.Vanilla(3)
    x = ragged([2, 0])
    with tf.GradientTape() as tape:
        outputs = stack(dense(x))
        loss = tf.reduce_sum(outputs)
    np.testing.assert_array_equal(outputs[1], np.zeros(3))
    assert all(np.all(np.isfinite(part)) for part in tape.gradient(loss, dense.weights))
    np.testing.assert_array_equal(stack(dense(ragged([0, 0]))), np.zeros((2, 3)))


NORMALIZED = {
    "steps": lambda norm: kb.Stacked([norm]),
    "time_distributed": lambda norm: kb.Stacked([layers.TimeDistributed(norm)]),
    "sequential": lambda norm: kb.Stacked([keras.Sequential([layers.Dense(6), norm])]),
    "windows": lambda norm: kb.Convolution(kb.Stacked([kb.Vanilla(6), norm]), 2),
}


@pytest.mark.parametrize("make", NORMALIZED.values(), ids=NORMALIZED)
def test_statistics_of_a_batch_stay_where_there_is_nothing_to_normalize(make):
    norm = layers.BatchNormalization()
    block = make(norm)
    block(ragged([2, 3]))
    train = tf.function(lambda x: block(x, training=True))
    for call in (train, lambda x: block(x, training=True)):
        assert call(ragged([0, 0])).nrows() == 2
        np.testing.assert_array_equal(norm.moving_mean, np.zeros(6))
        np.testing.assert_array_equal(norm.moving_variance, np.ones(6))
    train(ragged([2, 3]))
    assert np.all(np.asarray(norm.moving_mean) != 0)
