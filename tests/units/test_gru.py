import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

UNITS, FEATURES = 4, 3
FLOAT32 = 1e-5  # a few steps of sums of a few products


def _random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def _gru_with_update_bias(value):
    layer = kb.GRU(UNITS, return_sequences=True)
    layer.build((None, None, FEATURES))
    kernel, recurrent, bias = (_random(*w.shape) for w in layer.weights)
    kernel[:, :UNITS] = recurrent[:, :UNITS] = 0
    bias[:UNITS] = value
    layer.set_weights([kernel, recurrent, bias])
    return layer


def test_gru_carries_the_old_state_when_the_update_gate_is_shut():
    state = _random(2, UNITS)
    y = _gru_with_update_bias(-100)(_random(2, 5, FEATURES), initial_state=state)
    for step in range(5):
        np.testing.assert_array_equal(y[:, step], state)


def test_gru_takes_the_proposal_when_the_update_gate_is_open():
    layer = _gru_with_update_bias(100)
    kernel, recurrent, bias = (np.array(w) for w in layer.weights)
    state, x = _random(2, UNITS), _random(2, 1, FEATURES)
    r = 1 / (
        1
        + np.exp(
            -(x[:, 0] @ kernel + bias)[:, UNITS : 2 * UNITS]
            - state @ recurrent[:, UNITS : 2 * UNITS]
        )
    )
    proposal = np.tanh(
        x[:, 0] @ kernel[:, -UNITS:] + (r * state) @ recurrent[:, -UNITS:] + bias[-UNITS:]
    )
    y = layer(x, initial_state=state)[:, 0]
    np.testing.assert_allclose(y, proposal, rtol=FLOAT32, atol=FLOAT32)


OPTIONS = [
    {},
    {"use_bias": False},
    {"reset_after": True},
    {"reset_after": True, "use_bias": False},
    {"unroll": True},
    {"return_sequences": True, "zero_output_for_mask": True},
    {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    {"dropout": 0.5, "seed": 3},
    {"recurrent_dropout": 0.5, "seed": 3},
    {"dropout": 0.5, "recurrent_dropout": 0.5, "seed": 3},
    {"dropout": 0.5, "recurrent_dropout": 0.5, "reset_after": True, "seed": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gru_is_the_stock_layer_with_the_update_gate_negated(options):
    x, state = _random(3, 5, FEATURES), _random(3, UNITS)
    gaps = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    for go_backwards, mask in [(False, None), (True, None), (False, gaps), (True, gaps)]:
        shared = {"return_state": True, "go_backwards": go_backwards, **options}
        ours = kb.GRU(UNITS, **shared)
        # At one half, "hard_sigmoid" and "sigmoid" are symmetric; so negation is 1 - z.
        stock = keras.layers.GRU(UNITS, **{"reset_after": False, **shared})
        for layer, sign in ((ours, 1), (stock, -1)):
            layer.build(x.shape)
            for weight in layer.trainable_weights:
                value = _random(*weight.shape)
                value[..., :UNITS] *= sign
                weight.assign(value)
        for initial in (None, state):
            calls = [
                layer(x, mask=mask, initial_state=initial, training=True) for layer in (ours, stock)
            ]
            for mine, theirs in zip(*calls, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=FLOAT32, atol=FLOAT32)


def test_reset_after_is_off_by_default_and_known_to_the_config():
    assert kb.GRU(3).reset_after is False
    again = kb.GRU.from_config(kb.GRU(3, reset_after=True).get_config())
    assert again.reset_after is True
    assert again.cell.reset_after is True


def test_the_fused_weights_are_in_the_order_of_keras():
    layer = kb.GRU(UNITS, reset_after=True)
    layer.build((None, None, FEATURES))
    assert [w.name for w in layer.weights] == ["kernel", "recurrent_kernel", "bias"]
    assert layer.cell.bias.shape == (2, 3 * UNITS)


def test_the_cell_alone_takes_one_step():
    layer = kb.GRU(UNITS)
    x, state = _random(2, 1, FEATURES), _random(2, UNITS)
    expected = layer(x, initial_state=state)
    output, new_states = layer.cell(x[:, 0], [state])
    np.testing.assert_allclose(output, expected, rtol=FLOAT32)
    np.testing.assert_array_equal(output, new_states[0])


def test_gru_trains_on_batches_of_a_dataset_of_free_length():
    x, y = _random(6, 5, FEATURES), _random(6, UNITS)
    rows = tf.data.Dataset.from_tensor_slices((x, y)).padded_batch(2, ((None, FEATURES), (UNITS,)))
    model = keras.Sequential([keras.Input((None, FEATURES)), kb.GRU(UNITS)])
    model.compile("adam", "mse")
    losses = model.fit(rows, epochs=4, shuffle=False, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
