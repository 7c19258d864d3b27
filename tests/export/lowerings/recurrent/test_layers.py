"""Recurrent layers become native ops, and compute what Keras does under any mask."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, ragged, random_weights, sequences

import keras_blocks as kb
from keras_blocks.export import export_onnx
from keras_blocks.export.lowerings.recurrent.row_groups import FEWEST_ROWS, FEWEST_STEPS, GROUPS

layers = keras.layers

LAYERS = {
    "stock_gru": (layers.GRU, "GRU"),
    "stock_lstm": (layers.LSTM, "LSTM"),
    "gru": (kb.GRU, "GRU"),
    "lstm": (kb.LSTM, "LSTM"),
}
every_layer = pytest.mark.parametrize(("layer", "op"), LAYERS.values(), ids=LAYERS)

# 1 is a step that counts. In the file the kept steps move to the front and back, so each kind of
# gap matters: in front, in the middle, at the end, none, and nothing but a gap.
MASK = np.array(
    [
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0, 1, 1],
        [0, 1, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0],
    ],
    dtype=bool,
)


def on_sequence(layer, *, mask=False, states=0, ragged=False):
    """A model of the layer, its mask and initial states being inputs."""
    x = keras.Input((None, 6), name="x", ragged=ragged)
    inputs, kwargs = [x], {}
    if states:
        kwargs["initial_state"] = [keras.Input((4,), name=f"s{i}") for i in range(states)]
        inputs += kwargs["initial_state"]
    if mask:
        inputs.append(keras.Input((None,), dtype="bool", name="mask"))
        kwargs["mask"] = inputs[-1]
    return random_weights(keras.Model(inputs if len(inputs) > 1 else x, layer(x, **kwargs)))


def native(exported, op, count=1):
    """Whether so many dense layers run as one op each."""
    ops = exported.ops
    return ops[op] == count and not {"Loop", "Scan", "If"} & set(ops)


def native_in_groups(exported, op, count=1):
    """Whether so many layers over uneven rows have an op for each group, or one for all."""
    ops = exported.ops
    each = GROUPS + 1
    return (ops[op], ops["If"]) == (count * each, count) and not {"Loop", "Scan"} & set(ops)


def state_count(op):
    return {"GRU": 1, "LSTM": 2}[op]


@every_layer
@pytest.mark.parametrize("options", [{}, {"return_sequences": True}, {"go_backwards": True}])
def test_a_dense_layer_is_one_native_op(layer, op, options, tmp_path):
    exported = Exported(on_sequence(layer(4, **options)), tmp_path / "m.onnx")
    assert native(exported, op)
    assert sum(exported.ops.values()) <= 5
    for batch, time in [(1, 1), (1, 7), (3, 2)]:
        exported.check(sequences(batch, time))


@every_layer
def test_any_mask_gives_what_keras_gives(layer, op, tmp_path):
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None,), dtype="bool", name="mask")
    outputs = [
        layer(
            4,
            return_sequences=sequence,
            return_state=sequence,
            go_backwards=backwards,
            zero_output_for_mask=zeros,
        )(x, mask=mask)
        for sequence, backwards, zeros in itertools.product((True, False), repeat=3)
    ]
    model = random_weights(keras.Model([x, mask], outputs))
    exported = Exported(model, tmp_path / "m.onnx")
    assert native_in_groups(exported, op, count=8)
    exported.check([sequences(*MASK.shape), tf.constant(MASK)])
    for row in range(len(MASK)):
        exported.check([sequences(1, 7, seed=row), tf.constant(MASK[row : row + 1])])
    exported.check([sequences(2, 1), tf.constant([[True], [False]])])


@every_layer
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backwards", [False, True])
def test_initial_states_go_through_rows_that_are_masked_out(layer, op, masked, backwards, tmp_path):
    states = state_count(op)
    block = layer(4, return_sequences=True, return_state=True, go_backwards=backwards)
    exported = Exported(on_sequence(block, mask=masked, states=states), tmp_path / "m.onnx")
    assert (native_in_groups if masked else native)(exported, op)
    initial = [sequences(1, len(MASK), 4, seed=i)[0] for i in range(states)]
    mask = [tf.constant(MASK)] if masked else []
    exported.check([sequences(*MASK.shape), *initial, *mask])


@every_layer
def test_both_directions_are_one_op(layer, op, tmp_path):
    x = keras.Input((None, 6), name="x")
    modes = ["concat", "sum", "mul", "ave", None]
    outputs = [
        layers.Bidirectional(layer(4, return_sequences=True), merge_mode=mode)(x) for mode in modes
    ]
    exported = Exported(random_weights(keras.Model(x, outputs)), tmp_path / "m.onnx")
    assert native(exported, op, count=len(modes))
    for batch, time in [(1, 1), (3, 7)]:
        exported.check(sequences(batch, time))


@every_layer
@pytest.mark.parametrize("sequence", [False, True])
def test_both_directions_under_a_mask_share_their_ops(layer, op, sequence, tmp_path):
    block = layers.Bidirectional(layer(4, return_sequences=sequence, return_state=True))
    exported = Exported(on_sequence(block, mask=True), tmp_path / "m.onnx")
    assert native_in_groups(exported, op)
    exported.check([sequences(*MASK.shape), tf.constant(MASK)])


@every_layer
def test_both_directions_take_initial_states(layer, op, tmp_path):
    states = 2 * state_count(op)
    block = layers.Bidirectional(layer(4, return_sequences=True, return_state=True))
    exported = Exported(on_sequence(block, states=states), tmp_path / "m.onnx")
    assert native(exported, op)
    exported.check([sequences(3, 5), *(sequences(1, 3, 4, seed=i)[0] for i in range(states))])


def test_two_kinds_of_directions_are_two_ops(tmp_path):
    block = layers.Bidirectional(
        kb.GRU(4, return_sequences=True),
        backward_layer=layers.LSTM(3, return_sequences=True, go_backwards=True),
    )
    exported = Exported(on_sequence(block), tmp_path / "m.onnx")
    assert native(exported, "GRU")
    assert native(exported, "LSTM")
    exported.check(sequences(3, 5))


@pytest.mark.parametrize(("layer", "op"), [(kb.GRU, "GRU"), (kb.LSTM, "LSTM")])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
def test_ragged_rows_run_within_their_own_length(layer, op, backwards, sequence, tmp_path):
    block = layer(4, return_sequences=sequence, return_state=True, go_backwards=backwards)
    exported = Exported(on_sequence(block, ragged=True), tmp_path / "m.onnx")
    assert native_in_groups(exported, op)
    for lengths in ([3, 0, 1, 7], [0], [0, 0], [5], [1], []):
        exported.check(ragged(lengths))


@pytest.mark.parametrize(("layer", "op"), [(kb.GRU, "GRU"), (kb.LSTM, "LSTM")])
def test_an_empty_ragged_row_keeps_its_initial_state(layer, op, tmp_path):
    states = state_count(op)
    block = layer(4, return_state=True)
    exported = Exported(on_sequence(block, states=states, ragged=True), tmp_path / "m.onnx")
    for lengths in ([0, 2], [0], []):
        initial = [sequences(1, len(lengths), 4, seed=i)[0] for i in range(states)]
        exported.check([ragged(lengths), *initial])


# Long and uneven enough to run in groups; the rows fill them, or leave seats or whole groups free.
# The last share groups of four, as few rows do that differ little from the next.
UNEVEN = [
    [100, 0, 3, 80, 1, 57, 57, 2, 100, 31, 9, 0, 64, 12, 5, 77, 0, 0, 6, 31, 1],
    [0, 0, 300, 0, 0, 0, 0, 0, 0, 0],
    [*range(0, 90, 5), 200],
    [*range(120, 0, -10)],
]


def runs_in_groups(lengths):
    saved = len(lengths) * max(lengths) - sum(lengths)
    return saved > FEWEST_ROWS * max(lengths) + FEWEST_STEPS


def test_the_uneven_rows_of_the_tests_run_in_groups():
    assert all(map(runs_in_groups, UNEVEN))
    assert not runs_in_groups(len(MASK) * [7])


@every_layer
@pytest.mark.parametrize("backwards", [False, True])
def test_uneven_masks_give_what_keras_gives(layer, op, backwards, tmp_path):
    states = state_count(op)
    # Stock layers with `zero_output_for_mask`, ours without: the steps are read in other ways.
    zeros = layer in (layers.GRU, layers.LSTM)
    options = {"go_backwards": backwards, "zero_output_for_mask": zeros}
    block = layer(4, return_sequences=True, return_state=True, **options)
    exported = Exported(on_sequence(block, mask=True, states=states), tmp_path / "m.onnx")
    generator = np.random.default_rng(0)
    for lengths in UNEVEN:
        batch, time = len(lengths), max(lengths) + 3
        mask = generator.permuted(np.arange(time) < np.array(lengths)[:, np.newaxis], axis=1)
        initial = [sequences(1, batch, 4, seed=i)[0] for i in range(states)]
        exported.check([sequences(batch, time), *initial, tf.constant(mask)])


@every_layer
@pytest.mark.parametrize("sequence", [False, True])
def test_uneven_rows_give_what_keras_gives_in_both_directions(layer, op, sequence, tmp_path):
    block = layers.Bidirectional(layer(4, return_sequences=sequence, return_state=True))
    exported = Exported(on_sequence(block, mask=True), tmp_path / "m.onnx")
    for lengths in UNEVEN:
        batch, time = len(lengths), max(lengths)
        mask = np.arange(time) < np.array(lengths)[:, np.newaxis]
        exported.check([sequences(batch, time), tf.constant(mask)])


@pytest.mark.parametrize(("layer", "op"), [(kb.GRU, "GRU"), (kb.LSTM, "LSTM")])
@pytest.mark.parametrize("backwards", [False, True])
def test_uneven_ragged_rows_give_what_keras_gives(layer, op, backwards, tmp_path):
    states = state_count(op)
    block = layer(4, return_sequences=True, return_state=True, go_backwards=backwards)
    model = on_sequence(block, ragged=True, states=states)
    exported = Exported(model, tmp_path / "m.onnx")
    for lengths in UNEVEN:
        initial = [sequences(1, len(lengths), 4, seed=i)[0] for i in range(states)]
        exported.check([ragged(lengths), *initial])


@every_layer
@pytest.mark.parametrize("both", [False, True])
def test_a_masked_batch_of_no_rows_gives_no_rows(layer, op, both, tmp_path):
    block = layer(4, return_sequences=True, return_state=True)
    block = layers.Bidirectional(block) if both else block
    exported = Exported(on_sequence(block, mask=True), tmp_path / "m.onnx")
    every, *states = exported.run([np.zeros((0, 7, 6), "float32"), np.zeros((0, 7), bool)])
    assert every.shape == (0, 7, 8 if both else 4)
    assert all(state.shape == (0, 4) for state in states)


@every_layer
def test_the_activations_that_onnxruntime_has_are_native(layer, op, tmp_path):
    x = keras.Input((None, 6), name="x")
    names = ["relu", "elu", "softsign", "softplus", "leaky_relu", "hard_sigmoid", None]
    outputs = [layer(4, activation=a, recurrent_activation="hard_sigmoid")(x) for a in names]
    outputs.append(layer(4, activation="sigmoid", recurrent_activation="sigmoid")(x))
    exported = Exported(random_weights(keras.Model(x, outputs)), tmp_path / "m.onnx")
    assert native(exported, op, count=len(outputs))
    exported.check(sequences(3, 5))


@pytest.mark.parametrize("layer", [layers.GRU, layers.LSTM, kb.GRU, kb.LSTM])
@pytest.mark.parametrize("sequence", [False, True])
def test_other_activations_are_right_in_a_loop(layer, sequence, tmp_path):
    exported = Exported(
        on_sequence(layer(4, activation="gelu", return_sequences=sequence)), tmp_path / "m.onnx"
    )
    assert exported.ops["Loop"] == 1
    exported.check(sequences(3, 5))


@pytest.mark.parametrize("layer", [layers.GRU, kb.GRU])
def test_the_reset_gate_acts_before_or_after_the_product(layer, tmp_path):
    x = keras.Input((None, 6), name="x")
    options = itertools.product((False, True), repeat=2)
    outputs = [layer(4, reset_after=after, use_bias=bias)(x) for after, bias in options]
    exported = Exported(random_weights(keras.Model(x, outputs)), tmp_path / "m.onnx")
    assert native(exported, "GRU", count=4)
    exported.check(sequences(3, 5))


CELLS = {
    "stock_gru": (layers.GRUCell, "GRU"),
    "stock_lstm": (layers.LSTMCell, "LSTM"),
    "gru": (kb.GRUCell, "GRU"),
    "lstm": (kb.LSTMCell, "LSTM"),
}


@pytest.mark.parametrize(("cell", "op"), CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("runner", [layers.RNN, kb.Recurrence])
def test_a_cell_in_a_recurrence_is_one_native_op(cell, op, runner, tmp_path):
    exported = Exported(on_sequence(runner(cell(4), return_sequences=True)), tmp_path / "m.onnx")
    assert native(exported, op)
    exported.check(sequences(3, 5))


@pytest.mark.parametrize("mask", [False, True])
def test_simple_and_general_recurrences_are_right(mask, tmp_path):
    x = keras.Input((None,), dtype="int32", name="x")
    h = layers.Embedding(10, 6, mask_zero=mask)(x)
    h = layers.SimpleRNN(5, return_sequences=True)(h)
    h = kb.Recurrence(kb.Vanilla(4), return_sequences=True)(h)
    h = layers.RNN(layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(4)]))(h)
    exported = Exported(random_weights(keras.Model(x, h)), tmp_path / "m.onnx")
    ids = np.array([[1, 0, 3, 4, 0], [0, 0, 0, 0, 0], [0, 2, 5, 9, 1]], "int32")
    exported.check(ids)
    exported.check(ids[:1, :1])


def test_masks_go_on_to_later_layers(tmp_path):
    x = keras.Input((None,), dtype="int32", name="x")
    h = layers.Embedding(10, 6, mask_zero=True)(x)
    h = layers.Bidirectional(kb.LSTM(4, return_sequences=True))(h)
    h = layers.TimeDistributed(layers.Dense(5))(h)
    h = kb.GRU(4, return_sequences=True)(h)
    exported = Exported(
        random_weights(keras.Model(x, layers.GlobalAveragePooling1D()(h))), tmp_path / "m.onnx"
    )
    assert exported.ops["LSTM"] == exported.ops["GRU"] == GROUPS + 1
    exported.check(np.array([[1, 0, 3, 4, 0], [0, 2, 0, 9, 1]], "int32"))


@every_layer
def test_a_stateful_layer_starts_afresh_and_keeps_its_state_in_keras(layer, op, tmp_path):
    x = keras.Input(batch_shape=(2, None, 6), name="x")
    model = random_weights(keras.Model(x, layer(4, stateful=True)(x)))
    inputs = sequences(2, 5)
    fresh = model(inputs).numpy()
    held = [state.numpy() for state in model.layers[-1].states]
    exported = Exported(model, tmp_path / "m.onnx")
    assert native(exported, op)
    np.testing.assert_allclose(exported.run(inputs)[0], fresh, atol=1e-6)
    np.testing.assert_allclose(exported.run(inputs)[0], fresh, atol=1e-6)
    export_onnx(model, tmp_path / "proven.onnx")
    for state, before in zip(model.layers[-1].states, held, strict=True):
        np.testing.assert_array_equal(state.numpy(), before)


@every_layer
def test_half_precision_layers_are_native(layer, op, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = on_sequence(layers.Bidirectional(layer(4, return_sequences=True)))
    exported = Exported(model, tmp_path / "m.onnx")
    assert native(exported, op)
    # Keras rounds to float16 (11 bits) after every operation, the file once.
    exported.check(sequences(3, 5), tolerance=5e-3)


@every_layer
@pytest.mark.parametrize("rows", ["dense", "masked", "ragged"])
def test_float64_layers_are_loops(layer, op, rows, tmp_path):
    keras.config.set_dtype_policy("float64")
    x = y = keras.Input((None, 6), dtype="float64", ragged=rows == "ragged")
    if rows == "ragged" and not layer.__module__.startswith("keras_blocks"):
        pytest.skip("stock layers take no ragged rows")
    if rows == "masked":
        y = layers.Masking()(x)
    model = random_weights(keras.Model(x, layers.Bidirectional(layer(4))(y)))
    result = export_onnx(model, tmp_path / "m.onnx")
    assert op not in result.op_counts
    assert "float64" in result.parity.tolerance


class TwiceTheGRU(layers.GRU):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2 * super().call(sequences, initial_state, mask, training)


def test_a_subclass_does_not_get_its_parents_lowering(tmp_path):
    exported = Exported(on_sequence(TwiceTheGRU(4)), tmp_path / "m.onnx")
    assert exported.ops["GRU"] == 0
    exported.check(sequences(2, 5))


@pytest.mark.slow
def test_random_masks_never_differ(tmp_path):
    generator = np.random.default_rng(0)
    for (layer, _), both in itertools.product(LAYERS.values(), (False, True)):
        block = layer(4, return_sequences=True, return_state=True)
        block = layers.Bidirectional(block) if both else block
        exported = Exported(on_sequence(block, mask=True), tmp_path / "m.onnx")
        for _ in range(30):
            batch, time = generator.integers(1, 6), generator.integers(1, 20)
            mask = generator.random((batch, time)) < generator.random()
            exported.check([sequences(batch, time), tf.constant(mask)])


@pytest.mark.parametrize("sizes", [(None, 6), (5, 6)], ids=["free", "fixed"])
def test_an_unrolled_layer_is_a_loop_where_its_steps_cannot_be_counted(sizes, tmp_path):
    x = keras.Input(sizes, name="x")
    layer = keras.layers.SimpleRNN(4, unroll=True)
    exported = Exported(random_weights(keras.Model(x, layer(x))), tmp_path / "m.onnx")
    assert ("Loop" in exported.ops) == (None in sizes)
    assert layer.unroll
    exported.check(sequences(3, 5))
