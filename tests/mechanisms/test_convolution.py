"""Convolution, against a plain loop over windows and against the stock convolutions."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

SAME_SUMS = 1e-6  # float32, the same sums
OTHER_ORDER = 1e-5  # float32, sums in another order than NumPy's or the stock convolution's

SETTINGS = [
    {},
    {"strides": 2},
    {"dilation_rate": 2},
    {"padding": "same"},
    {"padding": "same", "strides": 3},
    {"padding": "same", "dilation_rate": 2},
    {"padding": "causal"},
    {"padding": "causal", "strides": 2},
    {"padding": "causal", "dilation_rate": 2},
]
each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=str)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class Steep(keras.layers.Layer):
    """A user's layer that knows nothing of windows, and computes no shapes."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.dense = keras.layers.Dense(units)

    def call(self, inputs):
        return keras.ops.sin(3 * self.dense(inputs))


def windows_of(x, size, strides=1, padding="valid", dilation_rate=1):
    """Every window of one example, flattened, by a loop: (steps..., positions * channels)."""
    rank = len(size)
    strides, dilation = ((n,) * rank if isinstance(n, int) else n for n in (strides, dilation_rate))
    extents = [(n - 1) * d + 1 for n, d in zip(size, dilation, strict=True)]
    lengths = x.shape[:-1]
    if padding == "valid":
        steps = [
            max(0, 1 + (n - e) // s) for n, e, s in zip(lengths, extents, strides, strict=True)
        ]
        before = [0] * rank
    else:
        steps = [-(-n // s) for n, s in zip(lengths, strides, strict=True)]
        missing = [
            max((count - 1) * s + e - n, 0)
            for count, s, e, n in zip(steps, strides, extents, lengths, strict=True)
        ]
        before = [e - 1 for e in extents] if padding == "causal" else [n // 2 for n in missing]
    found = np.zeros((*steps, *size, x.shape[-1]), x.dtype)
    for step in np.ndindex(*steps):
        for position in np.ndindex(*size):
            at = [
                t * s - b + p * d
                for t, s, b, p, d in zip(step, strides, before, position, dilation, strict=True)
            ]
            if all(0 <= i < n for i, n in zip(at, lengths, strict=True)):
                found[(*step, *position)] = x[tuple(at)]
    return found.reshape(*steps, int(np.prod(size)) * x.shape[-1])


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def ragged(lengths, width, seed=0):
    return tf.RaggedTensor.from_row_lengths(normal(sum(lengths), width, seed=seed), lengths)


def randomize(layer, seed=5):
    generator = np.random.default_rng(seed)
    layer.set_weights([generator.normal(size=w.shape).astype("float32") for w in layer.weights])


@each_setting
def test_a_vanilla_layer_gives_tanh_of_each_window_times_the_kernel(setting):
    layer = kb.Convolution(kb.Vanilla(4), 3, **setting)
    x = normal(2, 9, 5)
    layer.build(x.shape)
    randomize(layer)
    kernel, bias = layer.get_weights()
    expected = [np.tanh(windows_of(example, (3,), **setting) @ kernel + bias) for example in x]
    np.testing.assert_allclose(layer(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@each_setting
def test_any_other_layer_gets_the_same_windows_in_one_call(setting):
    seen = []

    class Recorder(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs)
            return 2 * inputs

        def compute_output_shape(self, input_shape):
            return input_shape

    x = normal(2, 9, 5)
    outputs = kb.Convolution(Recorder(), 3, **setting)(x)
    expected = np.array([windows_of(example, (3,), **setting) for example in x])
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], expected.reshape(-1, 15))
    np.testing.assert_array_equal(outputs, 2 * expected)


@pytest.mark.parametrize(
    ("stock", "size", "shape", "setting"),
    [
        (keras.layers.Conv1D, (4,), (2, 11, 3), {"padding": "causal", "dilation_rate": 3}),
        (keras.layers.Conv1D, (4,), (2, 11, 3), {"padding": "same", "strides": 2}),
        (keras.layers.Conv2D, (3, 2), (2, 7, 6, 3), {}),
        (keras.layers.Conv2D, (3, 2), (2, 7, 6, 3), {"padding": "same", "strides": (2, 3)}),
        (keras.layers.Conv2D, (3, 2), (2, 7, 6, 3), {"dilation_rate": (1, 2)}),
        (keras.layers.Conv3D, (2, 3, 2), (2, 5, 6, 4, 2), {}),
        (keras.layers.Conv3D, (2, 3, 2), (2, 5, 6, 4, 2), {"padding": "same", "strides": 2}),
    ],
)
def test_a_vanilla_layer_equals_the_stock_convolution_with_reshaped_weights(
    stock, size, shape, setting
):
    twin = stock(5, size, activation="tanh", **setting)
    twin.build(shape)
    randomize(twin)
    x = normal(*shape)
    kernel, bias = twin.get_weights()
    for inner in (kb.Vanilla(5), keras.layers.Dense(5, "tanh"), kb.Stacked([kb.Vanilla(5)])):
        layer = kb.Convolution(inner, size, **setting)
        layer.build(shape)
        layer.set_weights([kernel.reshape(-1, 5), bias])
        np.testing.assert_allclose(layer(x), twin(x), rtol=OTHER_ORDER, atol=OTHER_ORDER)


def test_a_vanilla_layer_runs_as_one_convolution_without_windows():
    layer = kb.Convolution(kb.Vanilla(4), 3)
    x = keras.Input((10, 5))
    model = keras.Model(x, layer(x))
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((None, 10, 5))).graph
    types = [node.type for node in graph.get_operations()]
    assert types.count("Conv2D") == 1
    assert not {"StridedSlice", "GatherV2", "ConcatV2", "MatMul"} & set(types)


@pytest.mark.parametrize("inner", [lambda: kb.Vanilla(4), lambda: Steep(4)])
@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_a_ragged_row_gives_what_the_loop_gives_for_it_alone(inner, padding):
    lengths = [5, 0, 1, 2, 7, 3]
    for strides, dilation in itertools.product((1, 2, 3), (1, 2)):
        setting = {"padding": padding, "strides": strides, "dilation_rate": dilation}
        layer = kb.Convolution(inner(), 3, **setting)
        x = ragged(lengths, 2)
        outputs = layer(x)
        for row, given in zip(x, outputs, strict=True):
            flat = windows_of(row.numpy(), (3,), **setting)
            expected = layer.layer(flat) if len(flat) else np.zeros((0, 4), "float32")
            np.testing.assert_allclose(given, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@pytest.mark.parametrize("inner", [lambda: kb.Vanilla(4), lambda: Steep(4)])
def test_ragged_batches_without_rows_steps_or_windows_give_empty_rows(inner):
    layer = kb.Convolution(inner(), 3)
    for lengths in ([], [0], [0, 0], [2, 1]):
        outputs = tf.function(layer)(ragged(lengths, 2))
        assert outputs.row_lengths().numpy().tolist() == [0] * len(lengths)
        assert outputs.values.shape == (0, 4)


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_a_dense_batch_without_examples_gives_none(padding):
    x = np.zeros((0, 5, 2), "float32")
    for inner in (kb.Vanilla(4), Steep(4)):
        outputs = kb.Convolution(inner, 3, padding=padding)(x)
        assert outputs.shape == (0, 3 if padding == "valid" else 5, 4)


def test_a_ragged_input_in_more_than_one_axis_is_refused_before_it_runs():
    with pytest.raises(ValueError, match="window_size must be one int"):
        kb.Convolution(kb.Vanilla(4), (2, 2))(keras.Input((None, 4, 3), ragged=True))


@pytest.mark.parametrize("inner", [lambda: kb.Vanilla(4), lambda: Steep(4)])
@each_setting
def test_a_traced_call_takes_any_length_even_one_too_short_for_a_window(inner, setting):
    layer = kb.Convolution(inner(), 3, **setting)
    layer.build((None, None, 2))
    traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None, 2))])
    # Padding makes room for a window as soon as there is one step.
    for length in range(0 if setting.get("padding", "valid") == "valid" else 1, 7):
        x = normal(2, length, 2)
        expected = [windows_of(example, (3,), **setting) for example in x]
        steps = expected[0].shape[0]
        outputs = traced(x)
        assert outputs.shape == (2, steps, 4)
        assert layer.compute_output_shape(x.shape) == (2, steps, 4)
        if steps:
            alone = [layer.layer(example) for example in expected]
            np.testing.assert_allclose(outputs, alone, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_a_masked_tail_is_as_if_the_row_ended_there(padding):
    lengths = [6, 3, 1]
    rows = ragged(lengths, 2)
    layer = kb.Convolution(kb.Vanilla(4), 3, padding=padding)
    mask = tf.sequence_mask(lengths)
    x = rows.to_tensor(default_value=9.0)
    outputs = layer(x, mask=mask)
    kept = outputs._keras_mask
    expected = layer(rows)
    assert tf.reduce_sum(tf.cast(kept, "int32"), 1).numpy().tolist() == [
        len(row) for row in expected
    ]
    np.testing.assert_allclose(
        tf.boolean_mask(outputs, kept), expected.values, rtol=SAME_SUMS, atol=SAME_SUMS
    )


def test_a_mask_from_an_embedding_reaches_the_layer_behind():
    tokens = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(9, 3, mask_zero=True)(tokens)
    x = kb.Convolution(kb.Vanilla(4), 2, padding="causal")(x)
    model = keras.Model(tokens, keras.layers.LSTM(2)(x))
    long, short = np.array([[3, 4, 0, 0]]), np.array([[3, 4]])
    np.testing.assert_allclose(model(long), model(short), rtol=SAME_SUMS, atol=SAME_SUMS)


def test_a_whole_model_is_convolved_in_two_dimensions():
    vector = keras.Input((12,))
    inner = keras.Model(vector, keras.layers.Dense(3)(keras.layers.Dense(7, "relu")(vector)))
    layer = kb.Convolution(inner, (2, 3), strides=(1, 2))
    x = normal(2, 4, 7, 2)
    expected = [
        inner(windows_of(e, (2, 3), strides=(1, 2)).reshape(-1, 12)).numpy().reshape(3, 3, 3)
        for e in x
    ]
    np.testing.assert_allclose(layer(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


def test_the_result_is_one_rank_higher_than_the_layer_s_own():
    matrix = kb.Stacked([kb.Vanilla(6), keras.layers.Reshape((2, 3))])
    symbol = kb.Convolution(matrix, 4)(keras.Input((9, 5)))
    assert symbol.shape == (None, 6, 2, 3)
    assert kb.Convolution(matrix, 4)(normal(1, 9, 5)).shape == (1, 6, 2, 3)


def test_a_recurrent_layer_may_read_each_window():
    inner = kb.Stacked([keras.layers.Reshape((3, 2)), kb.GRU(4)])
    x = normal(2, 6, 2)
    outputs = kb.Convolution(inner, 3)(x)
    for step in range(4):
        expected = inner.layers[1](x[:, step : step + 3])
        np.testing.assert_allclose(outputs[:, step], expected, rtol=SAME_SUMS, atol=SAME_SUMS)


def test_one_layer_in_two_convolutions_has_one_set_of_weights_also_after_loading(tmp_path):
    shared = Steep(3)
    x = keras.Input((8, 2))
    pair = [kb.Convolution(shared, 2)(x), kb.Convolution(shared, 2, strides=2)(x)]
    model = keras.Model(x, pair)
    assert len(model.weights) == 2
    data = normal(1, 8, 2)
    first, second = model(data)
    np.testing.assert_allclose(first[:, ::2], second, rtol=SAME_SUMS, atol=SAME_SUMS)
    model.save(tmp_path / "shared.keras")
    again = keras.saving.load_model(tmp_path / "shared.keras")
    assert len(again.weights) == 2
    np.testing.assert_allclose(again(data)[0], first, rtol=SAME_SUMS, atol=SAME_SUMS)


def test_a_subclass_of_vanilla_with_its_own_call_is_called():
    class Doubled(kb.Vanilla):
        def call(self, inputs):
            return 2 * super().call(inputs)

    layer = kb.Convolution(Doubled(3), 2)
    x = normal(1, 5, 2)
    doubled = layer(x)
    plain = kb.Vanilla(3)
    plain.build((None, 4))
    plain.set_weights(layer.get_weights())
    expected = 2 * kb.Convolution(plain, 2)(x)
    np.testing.assert_allclose(doubled, expected, rtol=SAME_SUMS, atol=SAME_SUMS)


def test_an_activity_regularizer_of_the_layer_counts():
    x = normal(2, 5, 2)
    layer = kb.Convolution(kb.Vanilla(3, activity_regularizer=keras.regularizers.L2(1.0)), 2)
    outputs = layer(x)
    windows = 2 * 4
    expected = np.sum(np.square(outputs)) / windows
    np.testing.assert_allclose(sum(layer.losses), expected, rtol=OTHER_ORDER)


def test_dropout_inside_the_layer_runs_in_training_only():
    inner = kb.Stacked([keras.layers.Dropout(0.5, seed=1), kb.Vanilla(3)])
    layer = kb.Convolution(inner, 2)
    x = normal(2, 5, 2)
    assert np.any(np.asarray(layer(x, training=True)) != np.asarray(layer(x, training=False)))
    np.testing.assert_array_equal(layer(x), layer(x, training=False))


def test_weights_are_named_by_where_they_are():
    layer = kb.Convolution(kb.Vanilla(3, name="filter"), 2, name="edges")
    layer(normal(1, 4, 2))
    assert [weight.path for weight in layer.weights] == ["edges/filter/kernel", "edges/filter/bias"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window_size": 0}, "`window_size` must be a positive int"),
        (
            {"window_size": (2, 2, 2, 2)},
            "`window_size` must be a positive int or a tuple of 1 to 3",
        ),
        ({"window_size": 2.5}, "`window_size` must be a positive int"),
        ({"window_size": (2, 2), "strides": (1, 1, 1)}, "`strides` must be .* a tuple of 2"),
        ({"window_size": 2, "dilation_rate": -1}, "`dilation_rate` must be a positive int"),
        ({"window_size": 2, "padding": "full"}, "`padding` must be .* Received: padding='full'"),
        ({"window_size": (2, 2), "padding": "causal"}, "`padding` must be"),
    ],
)
def test_a_wrong_argument_is_named(setting, message):
    with pytest.raises(ValueError, match=message):
        kb.Convolution(kb.Vanilla(3), **setting)


@pytest.mark.parametrize("given", [kb.Vanilla, 3, None, lambda x: x])
def test_what_is_no_layer_is_refused(given):
    with pytest.raises(TypeError, match="Convolution: `layer` must be a Keras layer"):
        kb.Convolution(given, 2)


def test_an_input_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"window_size=\(2, 2\) has 2 spatial axes.*rank 4"):
        kb.Convolution(kb.Vanilla(3), (2, 2))(normal(2, 5, 3))
    with pytest.raises(ValueError, match="must have rank 4"):
        kb.Convolution(kb.Vanilla(3), (2, 2))(ragged([3, 1], 2))


def test_a_mask_of_another_rank_is_refused():
    with pytest.raises(ValueError, match=r"one entry for each position"):
        kb.Convolution(kb.Vanilla(3), (2, 2))(normal(2, 5, 5, 3), mask=np.ones((2, 5), bool))


def test_a_layer_of_several_outputs_is_refused():
    with pytest.raises(ValueError, match="must give one tensor"):
        kb.Convolution(
            kb.Stacked([keras.layers.Reshape((2, 2)), kb.LSTM(2, return_state=True)]), 2
        )(normal(2, 5, 2))
