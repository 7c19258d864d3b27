"""Multi-head attention of ragged rows, beside a plain loop and beside the stock layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

OTHER_ORDER = 1e-5  # float32, sums in another order
LENGTHS, OTHER_LENGTHS = [3, 0, 7, 1, 12, 2, 5, 5, 4], [2, 4, 0, 3, 1, 9, 5, 2, 6]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def ragged(lengths, width, seed=0):
    return tf.RaggedTensor.from_row_lengths(normal(sum(lengths), width, seed=seed), lengths)


def make(**options):
    layer = kb.MultiHeadAttention(2, 4, bias_initializer="normal", **options)
    layer.build((None, None, 6), (None, None, 5))
    layer.set_weights([normal(*weight.shape, seed=1) for weight in layer.weights])
    return layer


def attend(layer, query, value, causal=False, mask=None):
    """One row against another, by the formula."""

    def project(dense, x):
        return np.einsum("tf,fhd->htd", x, dense.kernel.numpy()) + dense.bias.numpy()[:, None]

    q = project(layer.query_dense, query)
    k, v = project(layer.key_dense, value), project(layer.value_dense, value)
    heads = np.zeros((len(q), len(query), layer.value_dim))
    for head, t in np.ndindex(heads.shape[:2]):
        seen = [
            s for s in range(len(value)) if (not causal or s <= t) and (mask is None or mask[t, s])
        ]
        if seen:
            scores = np.array([q[head, t] @ k[head, s] / np.sqrt(layer.key_dim) for s in seen])
            shares = np.exp(scores - scores.max())
            heads[head, t] = sum(
                share * v[head, s] for share, s in zip(shares / shares.sum(), seen, strict=True)
            )
    out = layer.output_dense
    return np.einsum("htd,hdf->tf", heads, out.kernel.numpy()) + out.bias.numpy()


def assert_close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("value_dim", [4, 3])
def test_ragged_rows_attend_each_to_its_own_other_row(causal, value_dim):
    layer = make(value_dim=value_dim)
    query, value = ragged(LENGTHS, 6), ragged(OTHER_LENGTHS, 5, seed=2)
    y = layer(query, value, use_causal_mask=causal)
    assert y.row_lengths().numpy().tolist() == LENGTHS
    for row in range(len(LENGTHS)):
        assert_close(y[row], attend(layer, query[row].numpy(), value[row].numpy(), causal))
    run = tf.function(lambda q, v: layer(q, v, use_causal_mask=causal))
    assert_close(run(query, value).values, y.values)


@pytest.mark.parametrize("lengths", [[4, 4, 4], [2], [0, 0], []], ids=str)
def test_rows_of_one_length_are_those_of_the_stock_layer(lengths):
    layer, x = make(), ragged(lengths, 6)
    value = ragged(lengths, 5, seed=2)
    y = layer(x, value)
    assert y.row_lengths().numpy().tolist() == lengths
    if 0 not in lengths and lengths:
        stock = keras.layers.MultiHeadAttention(2, 4)
        stock.build((None, None, 6), (None, None, 5))
        stock.set_weights(layer.get_weights())
        assert_close(y.to_tensor(), stock(x.to_tensor(), value.to_tensor()))
        dense = layer(x.to_tensor(), value.to_tensor(), return_attention_scores=True)
        assert_close(dense[0], y.to_tensor())
        assert dense[1].shape == (len(lengths), 2, lengths[0], lengths[0])


@pytest.mark.parametrize("heads", [None, 1, 2])
def test_an_attention_mask_says_which_steps_see_which_and_none_gives_zeros(heads):
    layer = make()
    query, value = ragged(LENGTHS, 6), ragged(OTHER_LENGTHS, 5, seed=2)
    batch, longest = len(LENGTHS), max(LENGTHS)
    mask = np.random.default_rng(4).random((batch, longest, max(OTHER_LENGTHS))) < 0.4
    given = mask if heads is None else np.repeat(mask[:, None], heads, axis=1)
    y = layer(query, value, attention_mask=given)
    for row in range(batch):
        expected = attend(layer, query[row].numpy(), value[row].numpy(), mask=mask[row])
        assert_close(y[row], expected)


@pytest.mark.parametrize("query_is_ragged", [False, True])
def test_dense_and_ragged_inputs_mix_and_masks_of_the_dense_ones_hold(query_is_ragged):
    layer = make()
    lengths = [3, 1, 4]
    query, value = ragged(lengths, 6), ragged([2, 4, 3], 5, seed=2)
    expected = layer(query, value)
    if query_is_ragged:
        mask = tf.sequence_mask([2, 4, 3], 4)
        assert_close(layer(query, value.to_tensor(), value_mask=mask).values, expected.values)
    else:
        y = layer(query.to_tensor(), value)
        assert y.shape == (3, 4, 6)
        for row, length in enumerate(lengths):
            assert_close(y[row, :length], expected[row])


@pytest.mark.parametrize(
    "options", [{"use_gate": True}, {"sliding_window": 2}, {"output_shape": 3}], ids=str
)
def test_the_options_of_the_stock_layer_hold_for_each_ragged_row(options):
    layer = make(**options)
    x, value = ragged([3, 6, 1, 2], 6), ragged([3, 6, 1, 2], 5, seed=2)
    y = layer(x, value, use_causal_mask=True)
    for row in range(4):
        alone = layer(x[row][tf.newaxis], value[row][tf.newaxis], use_causal_mask=True)
        assert_close(y[row], alone[0])


def test_dropout_drops_in_training_and_not_else():
    layer = make(dropout=0.5, seed=3)
    x, value = ragged(LENGTHS, 6), ragged(OTHER_LENGTHS, 5, seed=2)
    assert np.any(layer(x, value, training=True).values != layer(x, value).values)
    assert_close(layer(x, value).values, make()(x, value).values)


def test_symbols_say_whether_the_result_is_ragged():
    rows, dense = keras.Input((None, 6), ragged=True), keras.Input((None, 6))
    for query, value in ((rows, rows), (rows, dense), (dense, rows), (dense, dense)):
        y = kb.MultiHeadAttention(2, 4)(query=query, value=value)
        assert (y.shape, y.ragged) == ((None, None, 6), query.ragged)


def test_what_ragged_rows_cannot_do_is_refused_by_name():
    layer, x = make(), ragged(LENGTHS, 6)
    value = ragged(OTHER_LENGTHS, 5)
    with pytest.raises(ValueError, match=r"return_attention_scores=True needs dense inputs"):
        layer(x, value, return_attention_scores=True)
    with pytest.raises(ValueError, match="value and key must both be ragged"):
        layer(x, value, key=value.to_tensor())
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have as many rows"):
        layer(x, value[:3])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must have the same lengths"):
        layer(x, value, key=ragged(LENGTHS, 5))
    with pytest.raises(ValueError, match=r"must be \(batch, time, features\).* 3, 4"):
        layer(x, np.zeros((9, 2, 2, 5), "float32"))
