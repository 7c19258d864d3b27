"""Merging layers on ragged rows, by NumPy; the dense case is the stock layers' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

FLOAT32 = 1e-6  # the same few operations

LENGTHS = [3, 0, 2]
FORMULAS = {
    "Add": lambda *x: sum(x),
    "Subtract": lambda a, b: a - b,
    "Multiply": lambda a, b: a * b,
    "Average": lambda *x: sum(x) / len(x),
    "Maximum": np.maximum,
    "Minimum": np.minimum,
    "Concatenate": lambda *x: np.concatenate(x, axis=-1),
}
each_layer = pytest.mark.parametrize(("name", "formula"), FORMULAS.items(), ids=FORMULAS)


def ragged(lengths, width=4, seed=0):
    values = np.random.default_rng(seed).normal(size=(sum(lengths), width)).astype("float32")
    return tf.RaggedTensor.from_row_lengths(values, lengths)


@each_layer
@pytest.mark.parametrize("lengths", [LENGTHS, [0, 0], []], ids=str)
def test_rows_are_merged_step_by_step(name, formula, lengths):
    a, b = ragged(lengths), ragged(lengths, seed=1)
    y = getattr(kb, name)()([a, b])
    assert y.row_lengths().numpy().tolist() == lengths
    np.testing.assert_allclose(y.values, formula(a.values.numpy(), b.values.numpy()), rtol=FLOAT32)


@each_layer
@pytest.mark.parametrize("axes", [2, 3])
def test_every_step_of_a_row_meets_the_vector_of_the_row(name, formula, axes):
    a, vectors = ragged(LENGTHS), np.arange(12, dtype="float32").reshape(3, 4)
    given = vectors if axes == 2 else vectors[:, None]
    y = getattr(kb, name)()([a, given])
    met = np.repeat(vectors, LENGTHS, axis=0)
    np.testing.assert_allclose(y.values, formula(a.values.numpy(), met), rtol=FLOAT32)


@each_layer
def test_dense_inputs_are_those_of_the_stock_layer(name, formula):
    x = [np.random.default_rng(seed).normal(size=(2, 3, 4)).astype("float32") for seed in (0, 1)]
    np.testing.assert_array_equal(getattr(kb, name)()(x), getattr(keras.layers, name)()(x))


@each_layer
def test_symbols_are_ragged_where_an_input_is(name, formula):
    rows, vectors = keras.Input((None, 4), ragged=True), keras.Input((4,))
    width = 8 if name == "Concatenate" else 4
    for pair in ([rows, rows], [rows, vectors], [vectors, rows]):
        if name == "Concatenate" and pair[0] is vectors:
            continue
        y = getattr(kb, name)()(pair)
        assert y.ragged
        assert y.shape[-1] == width


def test_what_does_not_fit_is_refused_by_name():
    a = ragged(LENGTHS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Add: ragged inputs must have rows"):
        kb.Add()([a, ragged([2, 1, 2])])
    with pytest.raises(ValueError, match=r"Add: beside a ragged input of rank 3.*ToRagged"):
        kb.Add()([a, a.to_tensor()])
    with pytest.raises(ValueError, match="Concatenate: ragged inputs of rank 3 are merged within"):
        kb.Concatenate(axis=1)([a, a])


def test_a_vector_is_repeated_for_every_step_of_its_row():
    vectors, rows = np.arange(6, dtype="float32").reshape(3, 2), ragged(LENGTHS)
    y = kb.RepeatVector()([vectors, rows])
    np.testing.assert_array_equal(y.values, np.repeat(vectors, LENGTHS, axis=0))
    assert y.row_lengths().numpy().tolist() == LENGTHS
    y = kb.RepeatVector()([vectors, rows.to_tensor()])
    np.testing.assert_array_equal(y, np.repeat(vectors[:, None], 3, axis=1))
    np.testing.assert_array_equal(
        kb.RepeatVector(3)(vectors), keras.layers.RepeatVector(3)(vectors)
    )


def test_a_vector_is_not_repeated_a_wrong_number_of_times():
    with pytest.raises(TypeError, match="n must be an int or None"):
        kb.RepeatVector(2.0)
    with pytest.raises(ValueError, match=r"n must be positive. Received: n=0"):
        kb.RepeatVector(0)
    with pytest.raises(ValueError, match=r"n=None the input must be a pair"):
        kb.RepeatVector()(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"the vectors must be \(batch, features\)"):
        kb.RepeatVector(2)(np.zeros((2, 3, 4)))
