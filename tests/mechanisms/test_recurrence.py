"""Recurrence, against a plain loop over steps and against the stock recurrent layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb

SAME_SUMS = 1e-6  # float32, the same sums
OTHER_ORDER = 1e-5  # float32, sums in another order, over a few steps
GRADIENT = 1e-5  # float64 central differences with steps of 1e-6


@keras.saving.register_keras_serializable("keras_blocks_tests")
class Wave(layers.Layer):
    """A user's layer that computes no shapes, and whose weights need the width of its input."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs):
        return keras.ops.sin(3 * keras.ops.matmul(inputs, self.kernel))


class Unregistered(layers.Layer):
    """A user's layer that has no `build` either."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(units, "tanh")

    def call(self, inputs):
        return self.dense(inputs)


def whole_model(width=3, features=5):
    joined = keras.Input((width + features,))
    return keras.Model(joined, layers.Dense(width, "tanh")(layers.Dense(9, "relu")(joined)))


LAYERS = {
    "vanilla": lambda: kb.Vanilla(3),
    "dense": lambda: layers.Dense(3, "relu"),
    "users": lambda: Wave(3),
    "unregistered": lambda: Unregistered(3),
    "sequential": lambda: keras.Sequential([layers.Dense(6, "tanh"), layers.Dense(3)]),
    "model": whole_model,
    "stack": lambda: kb.Stacked([kb.Vanilla(4), Unregistered(3)]),
}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def ragged(lengths, *features, seed=0):
    return tf.RaggedTensor.from_row_lengths(normal(sum(lengths), *features, seed=seed), lengths)


def by_loop(layer, x, start=None, mask=None):
    """Every h of h = layer(concat(h, x_t)), held over masked steps, by a loop."""
    h = np.zeros((len(x), 3), "float32") if start is None else start
    outputs = []
    for step in range(x.shape[1]):
        new = np.asarray(layer(np.concatenate([h, x[:, step]], axis=-1)))
        h = new if mask is None else np.where(mask[:, step, None], new, h)
        outputs.append(h)
    return np.stack(outputs, axis=1)


@each_layer
def test_each_step_gets_the_output_before_it_beside_the_input(make):
    recurrence = kb.Recurrence(make(), return_sequences=True, return_state=True)
    x = normal(2, 6, 5)
    outputs, state = recurrence(x)
    expected = by_loop(recurrence.layer, x)
    np.testing.assert_allclose(outputs, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    np.testing.assert_allclose(state, expected[:, -1], rtol=OTHER_ORDER, atol=OTHER_ORDER)
    symbols = recurrence(keras.Input((6, 5)))
    assert [tuple(symbol.shape) for symbol in symbols] == [(None, 6, 3), (None, 3)]


@each_layer
def test_every_lifted_layer_is_saved_with_its_weights(make, tmp_path):
    if make is LAYERS["unregistered"] or make is LAYERS["stack"]:
        pytest.skip("a class that is not registered cannot be loaded")
    x = keras.Input((None, 5))
    model = keras.Model(x, kb.Recurrence(make())(x))
    data = normal(2, 4, 5)
    model.save(tmp_path / "recurrence.keras")
    again = keras.saving.load_model(tmp_path / "recurrence.keras")
    np.testing.assert_allclose(again(data), model(data), rtol=SAME_SUMS, atol=SAME_SUMS)


def test_a_vanilla_layer_equals_the_stock_simple_rnn():
    twin = layers.SimpleRNN(4, return_sequences=True, return_state=True)
    x = normal(2, 6, 5)
    twin(x)
    kernel, recurrent_kernel, _ = twin.get_weights()
    bias = normal(4, seed=2)
    twin.set_weights([kernel, recurrent_kernel, bias])
    recurrence = kb.Recurrence(kb.Vanilla(4), return_sequences=True, return_state=True)
    recurrence(x)
    recurrence.set_weights([np.concatenate([recurrent_kernel, kernel]), bias])
    mask = np.random.default_rng(1).random((2, 6)) < 0.6
    start = normal(2, 4, seed=3)
    for arguments in ({}, {"mask": mask}, {"initial_state": start}):
        for given, expected in zip(recurrence(x, **arguments), twin(x, **arguments), strict=True):
            np.testing.assert_allclose(given, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


CELLS = {
    "gru": (lambda: layers.GRUCell(3), lambda: layers.GRU(3)),
    "lstm": (lambda: layers.LSTMCell(3), lambda: layers.LSTM(3)),
    "own_gru": (lambda: kb.GRUCell(3), lambda: kb.GRU(3)),
    "list": (
        lambda: [layers.GRUCell(4), layers.LSTMCell(3)],
        lambda: layers.RNN([layers.GRUCell(4), layers.LSTMCell(3)]),
    ),
    "stacked_cells": (
        lambda: layers.StackedRNNCells([layers.LSTMCell(4), layers.SimpleRNNCell(3)]),
        lambda: layers.RNN([layers.LSTMCell(4), layers.SimpleRNNCell(3)]),
    ),
}


@pytest.mark.parametrize(("make", "twin"), CELLS.values(), ids=CELLS)
def test_a_cell_runs_as_in_the_stock_layer(make, twin):
    recurrence, twin = kb.Recurrence(make()), twin()
    x = normal(2, 6, 5)
    recurrence(x)
    expected = twin(x)
    recurrence.set_weights(twin.get_weights())
    np.testing.assert_allclose(recurrence(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    again = kb.Recurrence.from_config(recurrence.get_config())
    again(x)
    again.set_weights(twin.get_weights())
    np.testing.assert_allclose(again(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@each_layer
def test_masked_steps_leave_the_state_as_it_is(make):
    recurrence = kb.Recurrence(make(), return_sequences=True)
    x = normal(4, 6, 5)
    mask = np.random.default_rng(1).random((4, 6)) < 0.6
    mask[3] = False
    outputs = recurrence(x, mask=mask)
    expected = by_loop(recurrence.layer, x, mask=mask)
    np.testing.assert_allclose(outputs, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    zeros = kb.Recurrence(recurrence.layer, return_sequences=True, zero_output_for_mask=True)
    np.testing.assert_allclose(
        zeros(x, mask=mask), expected * mask[..., None], rtol=OTHER_ORDER, atol=OTHER_ORDER
    )


@pytest.mark.parametrize("setting", [{}, {"unroll": True}, {"go_backwards": True}], ids=str)
def test_initial_states_unrolling_and_direction(setting):
    recurrence = kb.Recurrence(
        kb.Stacked([kb.Vanilla(4), Wave(3)]), return_sequences=True, return_state=True, **setting
    )
    x, start = normal(2, 6, 5), normal(2, 3, seed=1)
    outputs, state = recurrence(x, initial_state=start)
    ordered = x[:, ::-1] if "go_backwards" in setting else x
    expected = by_loop(recurrence.layer, ordered, start=start)
    np.testing.assert_allclose(outputs, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    np.testing.assert_allclose(state, expected[:, -1], rtol=OTHER_ORDER, atol=OTHER_ORDER)


def test_a_stateful_recurrence_goes_on_where_it_was():
    recurrence = kb.Recurrence(kb.Vanilla(3), stateful=True, return_sequences=True)
    x = normal(2, 6, 5)
    parts = [np.asarray(recurrence(x[:, :2])), np.asarray(recurrence(x[:, 2:]))]
    whole = by_loop(recurrence.layer, x)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    recurrence.reset_state()
    np.testing.assert_allclose(recurrence(x), whole, rtol=OTHER_ORDER, atol=OTHER_ORDER)


def test_both_directions_run_in_a_stock_bidirectional_layer():
    both = layers.Bidirectional(kb.Recurrence(kb.Vanilla(3), return_sequences=True))
    x = normal(2, 6, 5)
    mask = np.arange(6) < np.array([[6], [4]])
    outputs = both(x, mask=mask)
    there = by_loop(both.forward_layer.layer, x, mask=mask)
    back = by_loop(both.backward_layer.layer, x[:, ::-1], mask=mask[:, ::-1])[:, ::-1]
    expected = np.concatenate([there, back], -1) * mask[..., None]
    np.testing.assert_allclose(outputs, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    first, second = both.weights[0], both.weights[2]
    assert np.any(np.asarray(first) != np.asarray(second))


def test_the_two_directions_keep_weights_of_their_own_when_loaded(tmp_path):
    x = keras.Input((None, 5))
    both = layers.Bidirectional(kb.Recurrence(kb.Stacked([Wave(4), kb.Vanilla(3)])))
    model = keras.Model(x, both(x))
    model.save(tmp_path / "both.keras")
    again = keras.saving.load_model(tmp_path / "both.keras")
    data = normal(2, 6, 5)
    assert len(again.weights) == len(model.weights) == 6
    np.testing.assert_allclose(again(data), model(data), rtol=SAME_SUMS, atol=SAME_SUMS)


@keras.saving.register_keras_serializable("keras_blocks_tests")
class BothWays(keras.Model):
    """A user's model, which makes its layers while it is loaded."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.both = layers.Bidirectional(kb.Recurrence(kb.Vanilla(3)))

    def call(self, inputs):
        return self.both(inputs)


def test_the_two_directions_keep_weights_of_their_own_in_a_subclassed_model(tmp_path):
    model, data = BothWays(), normal(2, 6, 5)
    expected = model(data)
    model.save(tmp_path / "both.keras")
    again = keras.saving.load_model(tmp_path / "both.keras")
    assert len(again.weights) == len(model.weights) == 4
    np.testing.assert_allclose(again(data), expected, rtol=SAME_SUMS, atol=SAME_SUMS)


@pytest.mark.parametrize("go_backwards", [False, True])
@each_layer
def test_a_ragged_row_gives_what_it_gives_alone(make, go_backwards):
    recurrence = kb.Recurrence(
        make(), return_sequences=True, return_state=True, go_backwards=go_backwards
    )
    x = ragged([4, 0, 1, 3], 5)
    outputs, states = recurrence(x)
    for row, given, state in zip(x, outputs, states, strict=True):
        steps = row.numpy()[::-1] if go_backwards else row.numpy()
        expected = by_loop(recurrence.layer, steps[np.newaxis])[0] if len(steps) else steps[:, :3]
        np.testing.assert_allclose(given, expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
        last = expected[-1] if len(steps) else np.zeros(3)
        np.testing.assert_allclose(state, last, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@pytest.mark.parametrize("make", [lambda: kb.Vanilla(3), lambda: Wave(3)])
def test_ragged_batches_without_rows_or_steps(make):
    recurrence = kb.Recurrence(make(), return_sequences=True, return_state=True)
    for lengths in ([], [0], [0, 0]):
        outputs, states = tf.function(recurrence)(ragged(lengths, 5))
        assert outputs.values.shape == (0, 3)
        assert outputs.row_lengths().numpy().tolist() == lengths
        np.testing.assert_array_equal(states, np.zeros((len(lengths), 3)))


def test_a_convolution_of_a_stack_runs_over_time_and_keeps_its_space():
    inner = kb.Convolution(kb.Stacked([kb.Vanilla(4), Wave(2)]), 3, padding="same")
    recurrence = kb.Recurrence(inner, return_sequences=True)
    x = normal(2, 4, 6, 3)
    recurrence(x)
    h, expected = np.zeros((2, 6, 2), "float32"), []
    for step in range(4):
        h = inner_by_loop(recurrence, np.concatenate([h, x[:, step]], -1))
        expected.append(h)
    expected = np.stack(expected, 1)
    np.testing.assert_allclose(recurrence(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    symbol = keras.Input((None, None, 3))
    model = keras.Model(symbol, recurrence(symbol))
    assert model.output_shape == (None, None, None, 2)
    np.testing.assert_allclose(model(x), expected, rtol=OTHER_ORDER, atol=OTHER_ORDER)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], bool)
    held = model.layers[-1](x, mask=mask)
    np.testing.assert_allclose(held[1, 3], expected[1, 1], rtol=OTHER_ORDER, atol=OTHER_ORDER)
    rows = tf.RaggedTensor.from_tensor(x, lengths=[4, 2])
    np.testing.assert_allclose(recurrence(rows)[1], expected[1, :2], rtol=OTHER_ORDER, atol=1e-5)


def inner_by_loop(recurrence, joined):
    """The convolution of the stack, window by window."""
    stack = recurrence.layer.layer
    padded = np.pad(joined, [(0, 0), (1, 1), (0, 0)])
    windows = [padded[:, t : t + 3].reshape(len(joined), -1) for t in range(joined.shape[1])]
    return np.stack([np.asarray(stack(window)) for window in windows], 1)


def test_a_recurrent_layer_is_lifted_over_sequences_of_sequences():
    inner = layers.LSTM(3, return_sequences=True)
    recurrence = kb.Recurrence(inner)
    x = normal(2, 4, 6, 5)
    outputs = recurrence(x)
    h = np.zeros((2, 6, 3), "float32")
    for step in range(4):
        h = np.asarray(inner(np.concatenate([h, x[:, step]], -1)))
    np.testing.assert_allclose(outputs, h, rtol=OTHER_ORDER, atol=OTHER_ORDER)


@pytest.mark.parametrize("make", [lambda: kb.Vanilla(3), lambda: Wave(3)])
def test_gradients_through_time_are_those_of_finite_differences(make):
    keras.config.set_dtype_policy("float64")
    recurrence = kb.Recurrence(make())
    x = tf.Variable(normal(2, 4, 5).astype("float64"))
    recurrence(x)
    points = [x, *(weight.value for weight in recurrence.trainable_weights)]
    direction_of = np.random.default_rng(3)

    def loss():
        return tf.reduce_sum(recurrence(x, mask=np.array([[1, 1, 1, 1], [1, 0, 1, 0]])) ** 2)

    with tf.GradientTape() as tape:
        value = loss()
    for point, gradient in zip(points, tape.gradient(value, points), strict=True):
        step = 1e-6 * direction_of.normal(size=point.shape)
        slope = np.sum(gradient * step)
        point.assign_add(step)
        ahead = loss()
        point.assign_sub(2 * step)
        behind = loss()
        point.assign_add(step)
        np.testing.assert_allclose(slope, (ahead - behind) / 2, rtol=GRADIENT, atol=GRADIENT)


def test_dropout_inside_the_layer_runs_in_training_only():
    recurrence = kb.Recurrence(kb.Stacked([layers.Dropout(0.5, seed=1), kb.Vanilla(3)]))
    x = normal(2, 6, 5)
    at_rest = np.asarray(recurrence(x))
    np.testing.assert_array_equal(at_rest, recurrence(x, training=False))
    assert np.any(at_rest != np.asarray(recurrence(x, training=True)))
    traced = tf.function(lambda x: recurrence(x, training=True))
    assert np.any(np.asarray(traced(x)) != np.asarray(traced(x)))


def test_a_layer_that_is_built_already_keeps_its_weights():
    inner = layers.Dense(3)
    inner.build((None, 8))
    weights = inner.get_weights()
    recurrence = kb.Recurrence(inner)
    recurrence(normal(2, 4, 5))
    np.testing.assert_array_equal(recurrence.get_weights()[0], weights[0])


def test_weights_are_named_by_where_they_are():
    recurrence = kb.Recurrence(kb.Vanilla(3, name="unit"), name="loop")
    recurrence(normal(1, 2, 4))
    assert [weight.path for weight in recurrence.weights] == [
        "loop/cell/unit/kernel",
        "loop/cell/unit/bias",
    ]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: layers.Activation("tanh"), (2, 4, 5)),
        (lambda: layers.Dropout(0.5), (2, 4, 5)),
        (lambda: layers.Reshape((1, -1)), (2, 4, 5)),
        (lambda: kb.Convolution(kb.Vanilla(3), 3), (2, 4, 6, 5)),
        (lambda: layers.LSTM(3), (2, 4, 6, 5)),
    ],
)
def test_a_layer_that_gives_h_in_another_shape_is_refused(make, shape):
    with pytest.raises(ValueError, match="must give h in the shape in which it takes it"):
        kb.Recurrence(make())(normal(*shape))


@pytest.mark.parametrize("given", [kb.Vanilla, 3, None, [], [kb.Vanilla(3)], np.tanh])
def test_what_is_neither_layer_nor_cell_is_refused(given):
    with pytest.raises(TypeError, match="Recurrence: `layer` must be a Keras layer"):
        kb.Recurrence(given)


def test_an_activity_regularizer_inside_the_loop_is_refused():
    inner = kb.Stacked([kb.Vanilla(3, activity_regularizer="l2")])
    with pytest.raises(ValueError, match="activity_regularizer, whose loss cannot leave the loop"):
        kb.Recurrence(inner)(normal(2, 4, 5))
    recurrence = kb.Recurrence(kb.Vanilla(3), activity_regularizer="l2")
    recurrence(normal(2, 4, 5))
    assert len(recurrence.losses) == 1


def test_a_stateful_recurrence_over_a_space_of_unknown_size_is_refused():
    inner = kb.Convolution(kb.Vanilla(3), 3, padding="same")
    with pytest.raises(ValueError, match="needs known lengths"):
        kb.Recurrence(inner, stateful=True)(keras.Input(batch_shape=(2, 4, None, 5)))


class Attending(layers.Layer):
    """A cell with a memory of five vectors beside its output."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.output_size = [3, (5, 3)], 3
        self.dense = layers.Dense(3)

    def build(self, input_shape):
        self.dense.build((None, input_shape[-1] + 3))

    def call(self, x, states):
        _, memory = states
        y = self.dense(tf.concat([x, tf.reduce_mean(memory, axis=1)], axis=-1))
        return y, [y, 0.9 * memory]

    def get_initial_state(self, batch_size=None):
        return [tf.zeros((batch_size, 3)), tf.zeros((batch_size, 5, 3))]


def test_states_of_any_shape_may_be_given_to_begin_with():
    x, start = normal(2, 5, 4), [tf.zeros((2, 3)), normal(2, 5, 3, seed=1)]
    block = kb.Recurrence(Attending(), return_sequences=True, return_state=True)
    twin = layers.RNN(block.cell, return_sequences=True, return_state=True)
    mask = np.array([[1, 1, 0, 1, 1], [1, 1, 0, 0, 0]], bool)
    for arguments in ({}, {"mask": mask}):
        given = block(x, initial_state=start, **arguments)
        for a, e in zip(given, twin(x, initial_state=start, **arguments), strict=True):
            np.testing.assert_allclose(a, e, rtol=SAME_SUMS, atol=SAME_SUMS)
    rows = tf.RaggedTensor.from_tensor(x, lengths=[5, 2])
    for a, e in zip(block(rows, initial_state=start)[1:], given[1:], strict=True):
        assert a.shape == e.shape
    with pytest.raises(ValueError, match=r"shapes \(batch, ..., 3\), \(batch, 5, 3\)\. Received"):
        block(x, initial_state=[start[0], tf.zeros((2, 4, 3))])


def test_a_recurrence_over_space_takes_any_size_of_it():
    block = kb.Recurrence(kb.Convolution(kb.Vanilla(3), 3, padding="same"))
    for size in (7, 9):
        x = normal(2, 4, size, 2)
        h = np.zeros((2, size, 3), "float32")
        outputs = block(x)
        for step in range(4):
            h = np.asarray(block.layer(np.concatenate([h, x[:, step]], axis=-1)))
        np.testing.assert_allclose(outputs, h, rtol=OTHER_ORDER, atol=OTHER_ORDER)
