"""Global poolings: every step of a row, an image, a volume as one vector."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

OTHER_ORDER = 1e-5  # float32, sums in another order

FORMULAS = {
    "max": (kb.GlobalMaxPooling, lambda steps: steps.max(0)),
    "sum": (kb.GlobalSumPooling, lambda steps: steps.sum(0)),
    "average": (kb.GlobalAveragePooling, lambda steps: steps.mean(0)),
}
each_pooling = pytest.mark.parametrize(("layer", "formula"), FORMULAS.values(), ids=FORMULAS)


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32") - 3  # maxima below 0


def pooled(rows, formula):
    """Each row of (steps, features) by the formula, 0 where there is no step."""
    flat = [np.reshape(row, (-1, row.shape[-1])) for row in rows]
    return [formula(row) if len(row) else np.zeros(row.shape[-1]) for row in flat]


def assert_close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@each_pooling
@pytest.mark.parametrize("inner", [(), (2,), (2, 3), (2, 3, 2)], ids=str)
def test_all_axes_between_batch_and_features_are_pooled(layer, formula, inner):
    x = normal(3, 4, *inner, 5)
    expected = pooled(x, formula)
    assert_close(layer()(x), expected)
    assert_close(layer(data_format="channels_first")(np.moveaxis(x, -1, 1)), expected)
    kept = layer(keepdims=True)(x)
    assert kept.shape == (3, *(1 for _ in range(1 + len(inner))), 5)
    assert_close(np.reshape(kept, (3, 5)), expected)


@each_pooling
@pytest.mark.parametrize("lengths", [[3, 0, 17, 1], [4, 4], [0, 0], [], [8]], ids=str)
@pytest.mark.parametrize("inner", [(), (2, 3)], ids=str)
def test_each_ragged_row_is_pooled_by_itself_and_an_empty_one_gives_0(
    layer, formula, lengths, inner
):
    x = tf.RaggedTensor.from_row_lengths(normal(sum(lengths), *inner, 5), lengths)
    rows = np.split(x.values.numpy(), np.cumsum(lengths)[:-1]) if lengths else []
    expected = np.reshape(pooled(rows, formula), (-1, 5))
    assert_close(layer()(x), expected)
    assert_close(tf.function(layer())(x), expected)
    kept = layer(keepdims=True)(x)
    assert kept.shape == (len(lengths), *(1 for _ in range(1 + len(inner))), 5)


@each_pooling
def test_masked_steps_do_not_count_and_a_row_of_none_gives_0(layer, formula):
    x = normal(3, 4, 5)
    mask = np.array([[True, False, True, True], [False] * 4, [False, False, True, False]])
    expected = pooled([row[kept] for row, kept in zip(x, mask, strict=True)], formula)
    y = layer()(x, mask=mask)
    assert_close(y, expected)
    assert getattr(y, "_keras_mask", None) is None


@each_pooling
def test_a_mask_of_steps_leaves_out_all_that_lies_within_them(layer, formula):
    x = normal(2, 3, 4, 5)
    mask = np.array([[True, False, True], [False, True, False]])
    expected = pooled([row[kept] for row, kept in zip(x, mask, strict=True)], formula)
    assert_close(layer()(x, mask=mask), expected)


@each_pooling
def test_no_steps_give_0_where_their_number_is_not_known_before(layer, formula):
    x = keras.Input((None, 5))
    model = keras.Model(x, layer()(x))
    run = tf.function(model, input_signature=[tf.TensorSpec((None, None, 5))])
    assert not run(tf.zeros((2, 0, 5))).numpy().any()
    assert_close(run(normal(2, 3, 5)), pooled(normal(2, 3, 5), formula))


def test_a_mask_flows_in_from_an_embedding():
    tokens = np.array([[3, 1, 0, 0], [2, 4, 1, 2]])
    embed = kb.Embedding(5, 3, mask_zero=True)
    y = kb.GlobalAveragePooling()(embed(tokens))
    table = embed.embeddings.numpy()
    assert_close(y, [table[[3, 1]].mean(0), table[tokens[1]].mean(0)])


def test_half_precision_is_added_up_in_full():
    x = np.full((1, 3000, 2), 40, "float16")
    assert kb.GlobalAveragePooling(dtype="float16")(x).numpy().tolist() == [[40, 40]]
    rows = tf.RaggedTensor.from_row_lengths(x[0], [2999, 1])
    assert kb.GlobalAveragePooling(dtype="float16")(rows).numpy().tolist() == [[40, 40]] * 2


def test_infinities_are_a_maximum_like_any_other_number():
    x = np.full((1, 2, 1), -np.inf, "float32")
    assert kb.GlobalMaxPooling()(x).numpy().tolist() == [[-np.inf]]
    rows = tf.RaggedTensor.from_row_lengths(np.full((3, 1), -np.inf, "float32"), [2, 1])
    assert kb.GlobalMaxPooling()(rows).numpy().tolist() == [[-np.inf]] * 2


@each_pooling
def test_what_does_not_fit_is_refused_by_name(layer, formula):
    with pytest.raises(ValueError, match=r"at least one axis of steps .* shape \(2, 3\)"):
        layer()(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"data_format must be .* data_format='last'"):
        layer(data_format="last")
    with pytest.raises(ValueError, match=r"one entry for each step.* mask of shape \(2, 3, 4\)"):
        layer()(normal(2, 3, 4), mask=np.ones((2, 3, 4), bool))
    rows = tf.RaggedTensor.from_row_lengths(normal(3, 4), [3])
    with pytest.raises(ValueError, match="a ragged input has its features in the last axis"):
        layer(data_format="channels_first")(rows)
