import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks import ragged
from keras_blocks.recurrent.ragged_rnn import RaggedRNN

LENGTHS = [[2, 0, 3], [1], [4, 4], [0, 0], []]
every_batch = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def _rows(lengths, features=2, dtype="int64"):
    values = np.arange(1, 1 + sum(lengths) * features, dtype="float32").reshape(-1, features)
    return tf.RaggedTensor.from_row_splits(values, np.cumsum([0, *lengths], dtype=dtype))


@every_batch
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_padding_puts_zeros_behind_each_row_and_comes_undone(lengths, dtype):
    x = _rows(lengths, dtype=dtype)
    dense, mask = ragged.to_padded(x)
    longest = max(lengths, default=0)
    assert dense.shape == (len(lengths), longest, 2)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(dense[row, :length], x[row])
        assert not dense[row, length:].numpy().any()
        assert mask[row].numpy().tolist() == [step < length for step in range(longest)]
    again = ragged.from_padded(dense, mask, x.row_splits)
    np.testing.assert_array_equal(again.values, x.values)
    np.testing.assert_array_equal(again.row_splits, x.row_splits)


@every_batch
def test_padding_is_as_long_as_asked_for(lengths):
    dense, mask = ragged.to_padded(_rows(lengths), at_least=6, fill=-1)
    assert dense.shape == (len(lengths), 6, 2)
    for row, length in enumerate(lengths):
        assert np.all(dense[row, length:] == -1)
        assert mask[row].numpy().sum() == length


def test_a_row_may_begin_behind_an_offset():
    dense, mask = ragged.to_padded(_rows([2, 1], 1), offsets=tf.constant([0, 2], tf.int64))
    assert dense[..., 0].numpy().tolist() == [[1, 2, 0], [0, 0, 3]]
    assert mask.numpy().tolist() == [[True, True, False], [False, False, True]]


def test_a_function_of_vectors_is_mapped_over_the_rows():
    y = ragged.map_values(lambda v: 2 * v, _rows([2, 0, 1], 1))
    assert y.to_list() == [[[2], [4]], [], [[6]]]


def test_ragged_tensors_are_told_from_dense_ones_real_and_symbolic():
    assert ragged.is_ragged(_rows([1]))
    assert ragged.is_ragged(ragged.ragged_spec((None, None, 2), "float32"))
    assert not ragged.is_ragged(tf.zeros((1, 2)))
    assert not ragged.is_ragged(keras.KerasTensor((1, 2)))


class Doubled(ragged.AcceptsRagged, keras.layers.Layer):
    """A user's own layer."""

    def call(self, inputs):
        return 2 * inputs

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_users_layer_may_accept_ragged_too(policy):
    symbol = keras.Input((None, 2), ragged=True)
    model = keras.Model(symbol, Doubled(dtype=policy)(symbol))
    y = model(_rows([2, 0]))
    assert model.output.ragged
    assert model.output.dtype == y.dtype.name == ("float32" if policy == "float32" else "float16")
    assert y.to_list() == [[[2, 4], [6, 8]], []]


def test_any_cell_runs_over_ragged_rows():
    layer = RaggedRNN([keras.layers.LSTMCell(3), keras.layers.SimpleRNNCell(2)])
    rows = _rows([3, 0, 2])
    together = layer(rows)
    for row in (0, 2):
        alone = layer(rows[row][tf.newaxis])
        np.testing.assert_allclose(together[row : row + 1], alone, rtol=1e-5)  # another sum order
    assert not together[1].numpy().any()


def _model(ragged_input):
    tokens = keras.Input((None,), dtype="int32", ragged=ragged_input)
    return keras.Model(tokens, kb.GRU(3)(kb.Embedding(5, 2)(tokens)))


def test_keras_does_not_choose_xla_for_a_ragged_model_where_it_would_for_a_dense_one(monkeypatch):
    accelerator = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [accelerator])
    for ragged_input in (False, True):
        model = _model(ragged_input)
        model.compile("sgd", "mse")
        assert model.jit_compile is not ragged_input


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_ragged_model_fits_evaluates_and_predicts_arrays(batch_size):
    model = _model(ragged_input=True)
    model.compile("adam", "mse")
    x, y = tf.ragged.constant([[1, 2, 4], [], [3]]), np.ones((3, 3), "float32")
    losses = model.fit(x, y, batch_size=batch_size, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert model.evaluate(x, y, batch_size=batch_size, verbose=0) < losses[0]
    predicted = model.predict(x, batch_size=batch_size, verbose=0)
    np.testing.assert_allclose(predicted, model(x), rtol=1e-5, atol=1e-6)  # shorter padding


def test_a_ragged_model_predicts_ragged_sequences_over_several_batches():
    tokens = keras.Input((None,), dtype="int32", ragged=True)
    x = keras.layers.Bidirectional(kb.GRU(3, return_sequences=True))(kb.Embedding(5, 2)(tokens))
    model = keras.Model(tokens, x)
    rows = tf.ragged.constant([[1, 2, 4], [], [3]])
    predicted = model.predict(rows, batch_size=2, verbose=0)
    assert predicted.row_lengths().numpy().tolist() == [3, 0, 1]
    np.testing.assert_allclose(predicted.values, model(rows).values, rtol=1e-5, atol=1e-6)
