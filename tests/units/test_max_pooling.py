import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb


def _pooled(x, widths, strides, padding="valid"):
    """One example without its batch axis, pooled by the formula, window by window."""
    windows = []
    for size, width, stride in zip(x.shape, widths, strides, strict=False):
        if padding == "valid":
            count, before = max(0, 1 + (size - width) // stride), 0
        else:
            count = -(-size // stride)
            before = max((count - 1) * stride + width - size, 0) // 2
        starts = [index * stride - before for index in range(count)]
        windows.append([slice(max(start, 0), start + width) for start in starts])
    y = np.zeros([*map(len, windows), x.shape[-1]], x.dtype)
    for index in itertools.product(*(range(len(w)) for w in windows)):
        window = tuple(w[i] for w, i in zip(windows, index, strict=True))
        y[index] = x[window].reshape(-1, x.shape[-1]).max(axis=0)
    return y


def _random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32") - 3  # no zero may win


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    ("sizes", "pool_size", "strides"),
    [((7,), 3, 2), ((5, 4), (2, 3), 1), ((5, 6), 2, None), ((4, 5, 3), 2, (1, 2, 1))],
)
def test_max_pooling_takes_the_greatest_of_each_window(sizes, pool_size, strides, padding):
    x = _random(2, *sizes, 3)
    layer = kb.MaxPooling(pool_size, strides, padding)
    widths = np.broadcast_to(pool_size, len(sizes))
    steps = widths if strides is None else np.broadcast_to(strides, len(sizes))
    expected = np.stack([_pooled(example, widths, steps, padding) for example in x])
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.compute_output_shape(x.shape) == expected.shape


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_max_pooling_along_three_axes_takes_other_dtypes_than_tensorflow_does(dtype, padding):
    x = _random(2, 4, 5, 6, 3).astype(dtype)
    y = kb.MaxPooling((2, 3, 2), (1, 2, 3), padding, dtype=dtype)(x)
    expected = np.stack([_pooled(example, (2, 3, 2), (1, 2, 3), padding) for example in x])
    np.testing.assert_array_equal(y, expected)


def test_max_pooling_with_the_channels_in_front():
    x = _random(2, 5, 4, 3)
    y = kb.MaxPooling(2, data_format="channels_first")(x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(y, kb.MaxPooling(2)(x).numpy().transpose(0, 3, 1, 2))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("width", "stride"), [(2, 2), (3, 1), (3, 2), (2, 3), (4, 3)])
def test_each_ragged_row_is_pooled_by_itself(width, stride, padding):
    lengths = [5, 0, 1, 2, 8, 3]
    splits = np.cumsum([0, *lengths])
    values = _random(sum(lengths), 2)
    y = kb.MaxPooling(width, stride, padding)(tf.RaggedTensor.from_row_splits(values, splits))
    for row in range(len(lengths)):
        alone = values[splits[row] : splits[row + 1]]
        np.testing.assert_array_equal(y[row], _pooled(alone, [width], [stride], padding))


def test_a_batch_of_empty_rows_pools_to_empty_rows():
    for padding in ("valid", "same"):
        for splits in ([0], [0, 0, 0]):
            rows = tf.RaggedTensor.from_row_splits(np.zeros((0, 2), "float32"), splits)
            y = kb.MaxPooling(3, padding=padding)(rows)
            assert y.row_splits.numpy().tolist() == splits


def test_a_dense_sequence_shorter_than_the_window_gives_no_step():
    layer = kb.MaxPooling(3)
    assert layer(_random(2, 2, 4)).shape == (2, 0, 4)
    assert layer.compute_output_shape((2, 2, 4)) == (2, 0, 4)
    of_any_length = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 4))])
    assert of_any_length(_random(2, 1, 4)).shape == (2, 0, 4)
    x = _random(2, 7, 4)
    np.testing.assert_array_equal(of_any_length(x), layer(x))


def test_max_pooling_of_any_length_compiles_under_xla():
    layer = kb.MaxPooling(3)
    signature = [tf.TensorSpec((None, None, 4))]
    compiled = tf.function(layer, input_signature=signature, jit_compile=True)
    x = _random(2, 7, 4)
    np.testing.assert_array_equal(compiled(x), layer(x))


def test_a_step_is_masked_where_its_window_holds_a_masked_step():
    tokens = np.array([[1, 2, 3, 4, 0, 0], [1, 0, 3, 4, 5, 6], [1, 1, 1, 0, 0, 0]])
    y = kb.MaxPooling(2)(kb.Embedding(7, 3, mask_zero=True)(tokens))
    expected = [[True, True, False], [False, True, True], [True, False, False]]
    assert y._keras_mask.numpy().tolist() == expected


def test_a_mask_goes_through_pooling_in_a_functional_model(tmp_path):
    tokens = keras.Input((None,), dtype="int32")
    x = kb.MaxPooling(2, padding="same")(kb.Embedding(7, 3, mask_zero=True)(tokens))
    model = keras.Model(tokens, kb.GRU(4)(x))
    padded = np.array([[1, 2, 3, 4, 0, 0], [1, 2, 3, 4, 5, 6]])
    alone = model(padded[:1, :4])
    np.testing.assert_allclose(model(padded)[:1], alone, rtol=1e-6)  # the same sums
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(padded), model(padded))


def test_a_mask_goes_through_pooling_where_the_lengths_are_not_known():
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, kb.GRU(4)(kb.MaxPooling(2)(kb.Embedding(7, 3, True)(tokens))))
    traced = tf.function(model, input_signature=[tf.TensorSpec((None, None), "int32")])
    padded = np.array([[1, 2, 3, 4, 0, 0], [1, 2, 3, 4, 5, 6]], "int32")
    np.testing.assert_allclose(traced(padded), model(padded), rtol=1e-6)  # the same sums


def test_the_gradient_goes_to_the_greatest_step_of_each_row():
    values = tf.constant([[1.0], [3.0], [2.0], [5.0], [4.0]])
    with tf.GradientTape() as tape:
        tape.watch(values)
        y = kb.MaxPooling(2)(tf.RaggedTensor.from_row_splits(values, [0, 3, 5]))
    gradient = tf.convert_to_tensor(tape.gradient(y.values, values))
    assert gradient.numpy().ravel().tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("size", [0, -2, 2.5, (2, 0), (), None])
def test_max_pooling_refuses_sizes_that_are_no_positive_integers(size):
    with pytest.raises(ValueError, match="pool_size must be a positive int"):
        kb.MaxPooling(size)


def test_max_pooling_names_what_does_not_fit():
    with pytest.raises(ValueError, match="padding must be 'valid' or 'same'"):
        kb.MaxPooling(2, padding="causal")
    with pytest.raises(ValueError, match="must have 1 to 3 spatial axes"):
        kb.MaxPooling(2)(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one int for each of the 1 spatial axes"):
        kb.MaxPooling((2, 2))(np.zeros((2, 5, 3)))
    rows = tf.RaggedTensor.from_row_splits(np.zeros((3, 2), "float32"), [0, 3])
    with pytest.raises(ValueError, match="data_format must be 'channels_last'"):
        kb.MaxPooling(2, data_format="channels_first")(rows)
