"""Attention pooling: a weighted mean, by a plain loop of its formula."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

OTHER_ORDER = 1e-5  # float32, sums in another order


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def attend(x, kernel, bias, context):
    """The result and the weights of one row (steps, features)."""
    if not len(x):
        return np.zeros(x.shape[-1]), np.zeros(0)
    scores = []
    for step in x:
        hidden = step if kernel is None else np.tanh(step @ kernel + bias)
        scores.append((hidden @ context).item())
    shares = np.exp(np.array(scores) - max(scores))
    weights = shares / shares.sum()
    return sum(weight * step for weight, step in zip(weights, x, strict=True)), weights


def weights_of(layer):
    if layer.kernel is None:
        return None, None, layer.context.numpy()
    return layer.kernel.numpy(), layer.bias.numpy(), layer.context.numpy()


def make(units):
    layer = kb.AttentionPooling(units, bias_initializer="normal")
    layer.build((None, None, 4))
    layer.set_weights([3 * normal(*weight.shape, seed=1) for weight in layer.weights])
    return layer


def assert_close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


each_score = pytest.mark.parametrize("units", [None, 3], ids=["linear", "hidden"])


@each_score
def test_dense_rows_are_weighted_by_the_formula(units):
    layer, x = make(units), normal(2, 5, 4)
    y, scores = layer(x, return_attention_scores=True)
    for row in range(2):
        expected, weights = attend(x[row], *weights_of(layer))
        assert_close(y[row], expected)
        assert_close(scores[row], weights)


@each_score
@pytest.mark.parametrize("lengths", [[3, 0, 11, 1], [4, 4], [0, 0], []], ids=str)
def test_ragged_rows_are_weighted_each_by_itself_and_an_empty_one_gives_0(units, lengths):
    layer = make(units)
    x = tf.RaggedTensor.from_row_lengths(normal(sum(lengths), 4), lengths)
    y, scores = layer(x, return_attention_scores=True)
    assert y.shape == (len(lengths), 4)
    assert scores.row_lengths().numpy().tolist() == lengths
    for row in range(len(lengths)):
        expected, weights = attend(x[row].numpy(), *weights_of(layer))
        assert_close(y[row], expected)
        assert_close(scores[row], weights)


@each_score
def test_masked_steps_have_no_weight_and_a_row_of_none_gives_0(units):
    layer, x = make(units), normal(3, 4, 4)
    mask = np.array([[True, False, True, True], [False] * 4, [False, False, True, False]])
    y, scores = layer(x, mask=mask, return_attention_scores=True)
    for row, kept in enumerate(mask):
        expected, weights = attend(x[row][kept], *weights_of(layer))
        assert_close(y[row], expected)
        assert_close(scores[row][kept], weights)
        assert not np.any(scores[row][~kept])


def test_symbols_say_whether_the_weights_are_ragged():
    for ragged in (False, True):
        x = keras.Input((None, 4), ragged=ragged)
        y, scores = kb.AttentionPooling()(x, return_attention_scores=True)
        assert (y.shape, y.ragged) == ((None, 4), False)
        assert (scores.shape, scores.ragged) == ((None, None), ragged)


def test_every_weight_takes_its_initializer_regularizer_and_constraint():
    layer = kb.AttentionPooling(
        3, kernel_regularizer="l2", context_constraint="non_neg", bias_initializer="ones"
    )
    again = kb.AttentionPooling.from_config(layer.get_config())
    again.build((None, None, 4))
    assert len(again.losses) == 1
    assert again.bias.numpy().tolist() == [1, 1, 1]
    assert isinstance(again.context.constraint, keras.constraints.NonNeg)


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(ValueError, match=r"units must be a positive int.* units=0"):
        kb.AttentionPooling(0)
    with pytest.raises(ValueError, match=r"must be \(batch, time, features\).*\(2, 3\)"):
        kb.AttentionPooling()(np.zeros((2, 3)))
