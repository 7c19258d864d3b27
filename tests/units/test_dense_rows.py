"""Ragged rows to a dense tensor with its mask, and back."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

LENGTHS = [3, 0, 2]


def ragged(lengths=LENGTHS):
    values = np.random.default_rng(0).normal(size=(sum(lengths), 4)).astype("float32")
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def test_rows_are_padded_behind_and_come_back():
    x = ragged()
    dense = kb.ToDense(pad_value=-1)(x)
    assert dense._keras_mask.numpy().tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 0]]
    for row, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(dense[row, :length], x[row])
        assert np.all(dense[row, length:] == -1)
    again = kb.ToRagged()(dense)
    np.testing.assert_array_equal(again.values, x.values)
    np.testing.assert_array_equal(again.row_splits, x.row_splits)
    assert kb.ToRagged()(x).row_splits is x.row_splits


def test_no_steps_and_no_rows_have_a_dense_form_too():
    assert kb.ToDense()(ragged([0, 0])).shape == (2, 1, 4)
    assert kb.ToDense()(ragged([])).shape == (0, 1, 4)


def test_without_a_mask_every_step_is_kept_and_masked_steps_anywhere_are_not():
    x = np.arange(12, dtype="float32").reshape(2, 3, 2)
    assert kb.ToRagged()(x).row_lengths().numpy().tolist() == [3, 3]
    mask = np.array([[True, False, True], [False, False, True]])
    rows = kb.ToRagged()(x, mask=mask)
    assert rows.to_list() == [[[0, 1], [4, 5]], [[10, 11]]]
    with pytest.raises(ValueError, match=r"ToRagged: the mask must have one entry for each step"):
        kb.ToRagged()(x, mask=np.ones((2, 3, 2), bool))


def test_stock_layers_heed_the_mask_in_a_model_and_the_result_is_ragged_again():
    symbol = keras.Input((None, 4), ragged=True)
    lstm = keras.layers.LSTM(3, return_sequences=True)
    y = kb.ToRagged()(lstm(kb.ToDense()(symbol)))
    model = keras.Model(symbol, y)
    assert model.output.ragged
    x = ragged()
    rows = model(x)
    for row in (0, 2):
        alone = lstm(x[row][tf.newaxis])[0]
        np.testing.assert_allclose(rows[row], alone, rtol=1e-5, atol=1e-6)  # another sum order
