"""What GRU and LSTM have in common: rows, masks, states, directions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from units import recurrent_formulas

import keras_blocks as kb

UNITS, FEATURES = 4, 3
FLOAT32 = 1e-5  # a few steps of sums of a few products

LAYERS = {"gru": kb.GRU, "lstm": kb.LSTM}
kinds = pytest.mark.parametrize("kind", LAYERS)
directions = pytest.mark.parametrize("go_backwards", [False, True], ids=["forth", "back"])


def _random(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


def _layer(kind, **options):
    """A layer with random weights, and those weights."""
    layer = LAYERS[kind](UNITS, **options)
    layer.build((2, None, FEATURES))
    layer.set_weights([_random(*weight.shape) for weight in layer.get_weights()])
    return layer, layer.get_weights()


def _states(kind, batch):
    return [_random(batch, UNITS, seed=seed) / 2 for seed in range({"gru": 1, "lstm": 2}[kind])]


def _row(kind, x, weights, states, mask=None, go_backwards=False):
    """Every output and the last states of one row, by the formula."""
    order = slice(None, None, -1) if go_backwards else slice(None)
    mask = None if mask is None else mask[order]
    return getattr(recurrent_formulas, kind)(x[order], weights, states, mask)


def _ragged(lengths, seed=0):
    values = _random(sum(lengths), FEATURES, seed=seed)
    return tf.RaggedTensor.from_row_splits(values, np.cumsum([0, *lengths]))


def _assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=FLOAT32, atol=FLOAT32)


@kinds
@directions
def test_the_layer_is_the_published_formula(kind, go_backwards):
    options = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    layer, weights = _layer(kind, **options)
    x, states = _random(3, 5, FEATURES), _states(kind, 3)
    outputs, *last = layer(x, initial_state=states)
    for b in range(3):
        own = [state[b] for state in states]
        expected, expected_last = _row(kind, x[b], weights, own, go_backwards=go_backwards)
        _assert_close(outputs[b], expected)
        for state, expected_state in zip(last, expected_last, strict=True):
            _assert_close(state[b], expected_state)


@kinds
@directions
def test_masked_steps_hold_the_state_wherever_they_are(kind, go_backwards):
    options = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    layer, weights = _layer(kind, **options)
    x, states = _random(4, 5, FEATURES), _states(kind, 4)
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]], bool)
    outputs, *last = layer(x, mask=mask, initial_state=states)
    for b in range(4):
        own = [state[b] for state in states]
        expected, expected_last = _row(kind, x[b], weights, own, mask[b], go_backwards)
        _assert_close(outputs[b], expected)
        for state, expected_state in zip(last, expected_last, strict=True):
            _assert_close(state[b], expected_state)


@kinds
@directions
def test_every_ragged_row_is_run_by_itself(kind, go_backwards):
    options = {"return_sequences": True, "return_state": True, "go_backwards": go_backwards}
    layer, weights = _layer(kind, **options)
    lengths = [3, 0, 5, 1]
    x, states = _ragged(lengths), _states(kind, 4)
    outputs, *last = layer(x, initial_state=states)
    assert outputs.row_lengths().numpy().tolist() == lengths
    for b, length in enumerate(lengths):
        own = [state[b] for state in states]
        expected, expected_last = _row(kind, x[b].numpy(), weights, own, go_backwards=go_backwards)
        _assert_close(outputs[b], np.reshape(expected, (length, UNITS)))
        for state, expected_state in zip(last, expected_last, strict=True):
            _assert_close(state[b], expected_state)


@kinds
def test_the_last_output_of_an_empty_row_is_zero_and_its_state_the_initial_one(kind):
    layer, _ = _layer(kind, return_state=True)
    states = _states(kind, 2)
    output, *last = layer(_ragged([0, 2]), initial_state=states)
    assert not output[0].numpy().any()
    for state, initial in zip(last, states, strict=True):
        np.testing.assert_array_equal(state[0], initial[0])


@kinds
def test_zero_output_for_mask_is_for_returned_sequences_only(kind):
    layer, weights = _layer(kind, zero_output_for_mask=True)
    zeros = [np.zeros(UNITS)] * len(_states(kind, 1))
    rows = _ragged([1, 3])
    _assert_close(layer(rows)[0], _row(kind, rows[0].numpy(), weights, zeros)[0][-1])


@kinds
@pytest.mark.parametrize("return_sequences", [False, True], ids=["last", "sequences"])
def test_both_directions_of_a_ragged_row_meet_step_by_step(kind, return_sequences):
    layer = keras.layers.Bidirectional(LAYERS[kind](UNITS, return_sequences=return_sequences))
    rows = _ragged([3, 0, 2])
    layer(rows)
    layer.set_weights([_random(*weight.shape) for weight in layer.get_weights()])
    weights = np.split(np.array(layer.get_weights(), dtype=object), 2)
    zeros = [np.zeros(UNITS)] * len(_states(kind, 1))
    outputs = layer(rows)
    for b in (0, 2):
        row = rows[b].numpy()
        forth, _ = _row(kind, row, weights[0], zeros)
        back, _ = _row(kind, row, weights[1], zeros, go_backwards=True)
        if return_sequences:
            _assert_close(outputs[b], np.concatenate([forth, back[::-1]], axis=1))
        else:
            _assert_close(outputs[b], np.concatenate([forth[-1], back[-1]]))


@kinds
def test_bidirectional_takes_masks_and_states_and_returns_states(kind):
    options = {"return_sequences": True, "return_state": True}
    layer = keras.layers.Bidirectional(LAYERS[kind](UNITS, **options))
    x, mask = _random(2, 4, FEATURES), np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    states = [*_states(kind, 2), *_states(kind, 2)]
    outputs, *last = layer(x, mask=mask, initial_state=states)
    alone, *last_alone = layer(x[:1, :3], initial_state=[state[:1] for state in states])
    _assert_close(outputs[0, :3], alone[0])
    assert not outputs[0, 3].numpy().any()
    for state, state_alone in zip(last, last_alone, strict=True):
        _assert_close(state[:1], state_alone)


@kinds
@pytest.mark.parametrize("ragged", [False, True], ids=["dense", "ragged"])
def test_a_stateful_layer_goes_on_where_it_stopped(kind, ragged):
    whole = _random(2, 6, FEATURES)
    parts = [whole[:, :2], whole[:, 2:]]
    if ragged:
        parts = [tf.RaggedTensor.from_tensor(part) for part in parts]
    stateful, _ = _layer(kind, stateful=True)
    fresh, _ = _layer(kind)
    for expected in (fresh(whole), fresh(whole)):
        stateful(parts[0])
        _assert_close(stateful(parts[1]), expected)
        stateful.reset_state()


@kinds
def test_a_row_at_a_time_of_one_batch_compiles_with_and_without_xla(kind):
    layer, _ = _layer(kind, return_sequences=True)
    x, mask = _random(1, 4, FEATURES), np.array([[True, False, True, True]])
    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)]
    for jit in (False, True):
        compiled = tf.function(
            lambda x, mask: layer(x, mask=mask), input_signature=signature, jit_compile=jit
        )
        _assert_close(compiled(x, mask), layer(x, mask=mask))


@kinds
def test_dropout_drops_the_same_inputs_at_every_step_and_none_at_inference(kind):
    options = {"kernel_initializer": "ones", "recurrent_initializer": "zeros", "seed": 2}
    layer = LAYERS[kind](UNITS, dropout=0.5, return_sequences=True, **options)
    plain = LAYERS[kind](UNITS, return_sequences=True, **options)
    # One feature at a time: where it is dropped, the step is that of a zero input.
    x = np.repeat(np.eye(FEATURES, dtype="float32")[:, None], 1, axis=1)
    with_zeros, with_ones = plain(0 * x)[:, 0], plain(2 * x)[:, 0]
    once = layer(x, training=True)[:, 0].numpy()
    dropped = np.all(np.isclose(once, with_zeros), axis=1)
    assert np.all(dropped | np.all(np.isclose(once, with_ones), axis=1))
    np.testing.assert_array_equal(layer(x), plain(x))


@kinds
def test_the_cells_work_in_the_stock_layer_stacked(kind):
    cell = {"gru": kb.GRUCell, "lstm": kb.LSTMCell}[kind]
    cells = [cell(UNITS), keras.layers.GRUCell(UNITS), cell(2)]
    outputs = keras.layers.RNN(cells, return_sequences=True)(_random(2, 5, FEATURES))
    assert outputs.shape == (2, 5, 2)


@kinds
def test_regularizers_and_constraints_act_on_the_cell(kind):
    layer = LAYERS[kind](
        UNITS,
        kernel_regularizer="l2",
        recurrent_regularizer="l2",
        bias_regularizer="l2",
        kernel_constraint="non_neg",
    )
    layer.build((None, None, FEATURES))
    assert len(layer.losses) == 3
    assert layer.cell.kernel.constraint is layer.kernel_constraint


@kinds
def test_every_argument_is_kept_under_its_name(kind):
    options = {
        "activation": "relu",
        "recurrent_activation": "hard_sigmoid",
        "use_bias": False,
        "dropout": 0.1,
        "recurrent_dropout": 0.2,
        "seed": 5,
        "return_sequences": True,
        "go_backwards": True,
        "zero_output_for_mask": True,
    }
    layer = LAYERS[kind](UNITS, **options)
    config = layer.get_config()
    for name, value in {"units": UNITS, **options}.items():
        assert config[name] == value
        assert getattr(layer, name) == value or callable(getattr(layer, name))
    assert LAYERS[kind].from_config(config).get_config() == config


@kinds
def test_units_must_be_a_positive_integer(kind):
    for units in (0, -3, 2.5):
        with pytest.raises(ValueError, match="units must be a positive int"):
            LAYERS[kind](units)


@kinds
def test_inputs_that_do_not_fit_are_refused(kind):
    layer = LAYERS[kind](UNITS)
    with pytest.raises(ValueError, match="expected ndim=3"):
        layer(_random(2, FEATURES))
    rows = tf.ragged.constant([[[1.0, 2.0], [3.0]]], ragged_rank=2)
    with pytest.raises(ValueError, match="size must be known"):
        LAYERS[kind](UNITS)(rows)
    with pytest.raises(ValueError, match="unroll=True needs a fixed number of steps"):
        LAYERS[kind](UNITS, unroll=True)(_ragged([2, 1]))
    with pytest.raises(ValueError, match="a ragged input takes no mask"):
        LAYERS[kind](UNITS)(_ragged([2, 1]), mask=np.ones((2, 2), bool))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"initial_state": np.zeros((2, 5))},
            r"shapes \(batch, ..., 3\).*Received shapes: \(2, 5\)",
        ),
        ({"initial_state": [np.zeros((2, 3))] * 3}, "`initial_state` must hold tensors of shapes"),
        ({"mask": np.ones((2, 9), bool)}, r"`mask` must have one entry for each step, \(2, 7\)"),
    ],
    ids=str,
)
def test_states_and_masks_that_do_not_fit_are_refused_by_name(arguments, message):
    for layer in (kb.GRU(3), kb.Recurrence(kb.Vanilla(3))):
        with pytest.raises(ValueError, match=message):
            layer(np.ones((2, 7, 4), "float32"), **arguments)


def test_a_built_layer_refuses_another_number_of_features():
    layer = kb.GRU(3)
    layer(np.ones((2, 7, 4), "float32"))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 4"):
        layer(np.ones((2, 7, 5), "float32"))
