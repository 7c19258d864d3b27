"""Inputs shorter than a window, or of no steps at all: graphs give what eager calls give."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb
from keras_blocks.ragged import to_padded

SAME_SUMS = 1e-6  # float32, the same sums


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def assert_same(given, expected):
    for a, e in zip(keras.tree.flatten(given), keras.tree.flatten(expected), strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=SAME_SUMS, atol=SAME_SUMS)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda rank: kb.MaxPooling(3, strides=2),
        lambda rank: kb.Convolution(kb.Vanilla(2), (3,) * rank),
        lambda rank: kb.Convolution(kb.Stacked([kb.Vanilla(2)]), (3,) * rank),
    ],
    ids=["max_pooling", "convolution", "convolution_of_stack"],
)
@pytest.mark.parametrize("lengths", [(5, 2, 0, 4), (2, 5)], ids=["long first", "short first"])
def test_windows_over_short_inputs_are_the_same_in_any_order(make, rank, lengths):
    layer, x = make(rank), keras.Input((*(None,) * rank, 2))
    model, compiled = keras.Model(x, layer(x)), tf.function(layer)
    for length in lengths:
        data = normal(2, *(length,) * rank, 2)
        expected = np.asarray(layer(data))
        assert_same(model.predict(data, verbose=0), expected)
        assert_same(compiled(tf.constant(data)).numpy(), expected)


def test_one_short_axis_that_is_known_beside_one_that_is_not():
    x = keras.Input((2, None, 2))
    for layer in (kb.MaxPooling(3), kb.Convolution(kb.Vanilla(2), (3, 3))):
        model = keras.Model(x, layer(x))
        assert model.predict(normal(2, 2, 7, 2), verbose=0).shape[1] == 0


def test_masks_of_short_inputs_are_as_empty_as_they_are():
    tokens = keras.Input((None,), dtype="int32")
    for window in (kb.MaxPooling(3, strides=1), kb.Convolution(kb.Vanilla(4), 3)):
        embedded = kb.Embedding(9, 4, mask_zero=True)
        model = keras.Model(tokens, layers.LSTM(2)(window(embedded(tokens))))
        long, padded = np.array([[3, 4, 5]]), np.array([[3, 4, 5, 0, 0]])
        assert_same(model.predict(long, verbose=0), model.predict(padded, verbose=0))
    model = keras.Model(tokens, kb.GRU(2)(window(embedded(tokens))))
    for steps in (2, 0, 3):
        symbols = np.ones((2, steps), "int32")
        given = model.predict(symbols, verbose=0)
        assert np.all(given == 0) == (steps < 3)


RECURRENT = {
    "gru": lambda **settings: kb.GRU(2, dropout=0.2, recurrent_dropout=0.2, **settings),
    "lstm": lambda **settings: kb.LSTM(2, **settings),
    "recurrence": lambda **settings: kb.Recurrence(kb.Vanilla(2), **settings),
    "cells": lambda **settings: kb.Recurrence([kb.GRUCell(2), layers.LSTMCell(3)], **settings),
}
SETTINGS = [
    {},
    {"return_sequences": True, "return_state": True},
    {"return_sequences": True, "go_backwards": True},
    {"return_sequences": True, "unroll": True},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("make", RECURRENT.values(), ids=RECURRENT)
def test_no_steps_leave_zeros_and_the_states_they_began_with(make, settings):
    layer = make(**settings)
    empty, some = np.zeros((2, 0, 3), "float32"), normal(2, 4, 3)
    expected = layer(some)  # only for its shapes
    layer_at_once = tf.function(layer, input_signature=[tf.TensorSpec([None, None, 3])])
    masked = layer(empty, mask=np.ones((2, 0), bool))
    given = [layer(empty), layer(empty, training=True), masked]
    if "unroll" not in settings:
        given.append(layer_at_once(empty))
        assert_same(layer_at_once(some), expected)
    for outputs in given:
        for output, like in zip(
            keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True
        ):
            steps = (0,) if len(like.shape) == 3 else ()
            assert tuple(output.shape) == (2, *steps, like.shape[-1])
            assert np.all(np.asarray(output) == 0)
    if settings.get("return_state"):
        begun = [tf.ones_like(state) for state in keras.tree.flatten(layer(some)[1:])]
        if len(begun) == 3:  # of two cells
            begun = [begun[0], begun[1:]]
        _, *last = layer(empty, initial_state=begun)
        assert_same(last, begun)


def test_a_dense_batch_of_empty_rows_is_a_ragged_one():
    rows = tf.RaggedTensor.from_row_lengths(normal(4, 4), [2, 2])
    convolution = kb.Convolution(kb.Vanilla(2), 3)
    for layer in (kb.GRU(2), layers.Bidirectional(kb.Recurrence(kb.Vanilla(2)))):
        assert_same(layer(convolution(to_padded(rows)[0])), layer(convolution(rows)))
