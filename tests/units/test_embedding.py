import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

TABLE = np.arange(12, dtype="float32").reshape(4, 3)


def test_embedding_is_the_product_of_the_one_hot_vector_and_the_table():
    symbols = np.array([[3, 0], [1, 1]])
    one_hot = np.zeros((2, 2, 4))
    for index in np.ndindex(2, 2):
        one_hot[(*index, symbols[index])] = 1
    y = kb.Embedding(4, 3, weights=TABLE)(symbols)
    np.testing.assert_array_equal(y, one_hot @ TABLE)


def test_embedding_looks_up_the_symbols_of_ragged_rows():
    y = kb.Embedding(4, 3, weights=TABLE)(tf.ragged.constant([[3, 0], [], [1]]))
    assert y.row_lengths().numpy().tolist() == [2, 0, 1]
    np.testing.assert_array_equal(y.values, TABLE[[3, 0, 1]])


def test_symbol_0_is_masked_if_asked_for():
    assert getattr(kb.Embedding(4, 3)(np.array([[1, 0]])), "_keras_mask", None) is None
    masked = kb.Embedding(4, 3, mask_zero=True)(np.array([[1, 0]]))
    assert masked._keras_mask.numpy().tolist() == [[True, False]]


def test_a_ragged_row_has_no_padding_to_mask():
    rows = tf.ragged.constant([[1, 0], [2]])
    symbol = keras.Input((None,), dtype="int32", ragged=True)
    for x in (rows, symbol):
        with pytest.raises(ValueError, match="Leave the zeros out of the rows"):
            kb.Embedding(4, 3, mask_zero=True)(x)


def test_only_the_rows_that_were_looked_up_get_a_gradient():
    layer = kb.Embedding(4, 3, weights=TABLE)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.ragged.constant([[1], [], [3, 3]])).values)
    gradient = tf.convert_to_tensor(tape.gradient(loss, layer.embeddings.value))
    assert gradient[:, 0].numpy().tolist() == [0, 1, 0, 2]


def test_the_table_is_not_read_as_a_whole():
    layer = kb.Embedding(4, 3, weights=TABLE)
    look_up = tf.function(layer).get_concrete_function(tf.TensorSpec([None], tf.int32))
    read = {op.type for op in look_up.graph.get_operations()}
    assert "ResourceGather" in read
    assert "ReadVariableOp" not in read


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32"])
def test_negative_symbols_count_from_the_end_as_in_keras(dtype):
    symbols = np.array([[-1, 2], [0, -4]], dtype)
    y = kb.Embedding(4, 3, weights=TABLE)(symbols)
    np.testing.assert_array_equal(y, keras.layers.Embedding(4, 3, weights=[TABLE])(symbols))
    np.testing.assert_array_equal(y[0], TABLE[[3, 2]])


@pytest.mark.parametrize("sizes", [(0, 3), (4, -1), (4.5, 3)])
def test_embedding_refuses_sizes_that_are_no_positive_integers(sizes):
    with pytest.raises(ValueError, match="must be a positive integer"):
        kb.Embedding(*sizes)


def test_embedding_says_how_to_embed_strings():
    with pytest.raises(ValueError, match="StringLookup"):
        kb.Embedding(4, 3)(tf.constant([["a", "b"]]))
