import keras
import numpy as np
import pytest

import keras_blocks as kb

UNITS, FEATURES = 4, 3
FLOAT32 = 1e-5  # a few steps of sums of a few products

OPTIONS = [
    {},
    {"use_bias": False},
    {"unroll": True},
    {"return_sequences": True, "zero_output_for_mask": True},
    {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    {"dropout": 0.5, "seed": 3},
    {"recurrent_dropout": 0.5, "seed": 3},
]


def _random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_lstm_is_the_stock_layer(options):
    x, states = _random(3, 5, FEATURES), [_random(3, UNITS), _random(3, UNITS) / 2]
    gaps = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [0, 0, 0, 0, 0]], bool)
    for go_backwards, mask in [(False, None), (True, None), (False, gaps), (True, gaps)]:
        shared = {"return_state": True, "go_backwards": go_backwards, **options}
        layers = [kb.LSTM(UNITS, **shared), keras.layers.LSTM(UNITS, **shared)]
        for layer in layers:
            layer.build(x.shape)
            for weight in layer.trainable_weights:
                weight.assign(_random(*weight.shape))
        for initial in (None, states):
            calls = [layer(x, mask=mask, initial_state=initial, training=True) for layer in layers]
            for mine, theirs in zip(*calls, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=FLOAT32, atol=FLOAT32)


def test_the_forget_gate_begins_open():
    layer = kb.LSTM(2)
    layer.build((None, None, FEATURES))
    assert layer.cell.bias.numpy().tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    shut = kb.LSTM(2, unit_forget_bias=False)
    shut.build((None, None, FEATURES))
    assert not shut.cell.bias.numpy().any()


def test_a_memory_cell_that_forgets_nothing_and_takes_nothing_stays():
    layer = kb.LSTM(2, return_state=True)
    layer.build((None, None, FEATURES))
    bias = np.array([-100, -100, 100, 100, 0, 0, 0, 0], "float32")
    layer.set_weights([np.zeros((FEATURES, 8)), np.zeros((2, 8)), bias])
    memory = _random(1, 2)
    _, _, c = layer(_random(1, 6, FEATURES), initial_state=[np.zeros((1, 2)), memory])
    np.testing.assert_array_equal(c, memory)
