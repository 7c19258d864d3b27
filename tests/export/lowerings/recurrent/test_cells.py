"""Several cells in one layer, and cells whose op is only sometimes the faster one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, random_weights, sequences

import keras_blocks as kb
from keras_blocks.export.lowerings.recurrent.cells import native_cell

layers = keras.layers

# Gaps in front, in the middle and at the end, nothing but a gap, none.
MASK = np.array(
    [[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], bool
)


def stack():
    return [layers.LSTMCell(3), kb.GRUCell(4)]


def model_of(layer, masked=False, states=()):
    """The layer over sequences; its mask and initial states are inputs."""
    x = keras.Input((None, 6), name="x")
    inputs, kwargs = [x], {}
    if states:
        kwargs["initial_state"] = keras.tree.map_structure(lambda n: keras.Input((n,)), states)
        inputs += keras.tree.flatten(kwargs["initial_state"])
    if masked:
        inputs.append(keras.Input((None,), dtype="bool", name="mask"))
        kwargs["mask"] = inputs[-1]
    outputs = keras.tree.flatten(layer(x, **kwargs))
    return random_weights(keras.Model(inputs if len(inputs) > 1 else x, outputs))


def check(exported, masked=False, sizes=(), batches=(5, 1)):
    for batch in batches:
        given = [sequences(batch, MASK.shape[1])]
        given += [sequences(1, batch, size, seed=size)[0] for size in sizes]
        given += [tf.constant(np.resize(MASK, (batch, MASK.shape[1])))] if masked else []
        exported.check(given if len(given) > 1 else given[0])


OPTIONS = {
    "last": {},
    "all": {"return_sequences": True},
    "backwards": {"return_sequences": True, "return_state": True, "go_backwards": True},
    "zeros": {"return_sequences": True, "return_state": True, "zero_output_for_mask": True},
}
every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
with_or_without_mask = pytest.mark.parametrize("masked", [False, True], ids=["dense", "masked"])


@with_or_without_mask
@every_option
def test_stacked_cells_are_an_op_each(options, masked, tmp_path):
    exported = Exported(model_of(layers.RNN(stack(), **options), masked), tmp_path / "m.onnx")
    assert "Loop" not in exported.ops
    assert exported.ops["LSTM"] == exported.ops["GRU"] > 0
    check(exported, masked)


@with_or_without_mask
def test_stacked_cells_take_initial_states(masked, tmp_path):
    model = model_of(layers.RNN(stack(), return_state=True), masked, states=[[3, 3], [4]])
    exported = Exported(model, tmp_path / "m.onnx")
    assert "Loop" not in exported.ops
    check(exported, masked, sizes=(3, 3, 4))


def test_stacked_cells_run_both_ways(tmp_path):
    layer = layers.Bidirectional(layers.RNN(stack(), return_sequences=True))
    exported = Exported(model_of(layer, masked=True), tmp_path / "m.onnx")
    assert "Loop" not in exported.ops
    check(exported, masked=True)


def test_the_formula_of_stacked_cells_is_that_of_layers_in_a_row(tmp_path):
    first, second = layers.GRUCell(4), layers.GRUCell(3)
    model = model_of(layers.RNN([first, second], return_sequences=True))
    exported = Exported(model, tmp_path / "m.onnx")
    x = sequences(2, 5)
    inner = layers.RNN(first, return_sequences=True)(x)
    wanted = layers.RNN(second, return_sequences=True)(inner)
    np.testing.assert_allclose(exported.run(x)[0], wanted.numpy(), atol=1e-5)


class Doubled(layers.Layer):
    """A cell that no op is for."""

    state_size = output_size = 6

    def call(self, x, states):
        return 2.0 * x, [x + states[0]]


def test_a_stack_with_a_cell_of_ones_own_stays_a_loop(tmp_path):
    exported = Exported(model_of(layers.RNN([Doubled(), layers.GRUCell(4)])), tmp_path / "m.onnx")
    assert (exported.ops["Loop"], exported.ops["GRU"]) == (1, 0)
    check(exported)


# SimpleRNN: the op for few rows, a loop for many

UNITS = 32
FEW = native_cell(layers.SimpleRNNCell(UNITS)).most_numbers // UNITS


@with_or_without_mask
@every_option
def test_a_simple_rnn_is_an_op_for_few_rows_and_a_loop_for_many(options, masked, tmp_path):
    model = model_of(layers.SimpleRNN(UNITS, **options), masked)
    exported = Exported(model, tmp_path / "m.onnx")
    assert exported.ops["RNN"] > 0
    assert exported.ops["Loop"] == 1
    check(exported, masked, batches=(1, FEW, FEW + 1))


@pytest.mark.parametrize(("rows", "op"), [(FEW, "RNN"), (FEW + 1, "Loop")])
def test_where_the_batch_is_known_only_the_faster_form_is_there(rows, op, tmp_path):
    x = keras.Input(batch_shape=(rows, None, 6), name="x")
    model = random_weights(keras.Model(x, layers.SimpleRNN(UNITS)(x)))
    exported = Exported(model, tmp_path / "m.onnx")
    assert exported.ops[op] == 1
    assert sum(exported.ops[name] for name in ("RNN", "Loop", "If")) == 1
    exported.check(sequences(rows, 5))


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "softsign"])
def test_the_activations_of_a_simple_rnn_are_those_of_the_op(activation, tmp_path):
    layer = layers.SimpleRNN(4, activation=activation, use_bias=activation != "relu")
    exported = Exported(model_of(layers.Bidirectional(layer)), tmp_path / "m.onnx")
    assert exported.ops["RNN"] == 2
    check(exported)


def test_a_simple_rnn_with_initial_states_keeps_them_in_masked_rows(tmp_path):
    layer = layers.SimpleRNN(4, return_state=True)
    exported = Exported(model_of(layer, masked=True, states=[4]), tmp_path / "m.onnx")
    check(exported, masked=True, sizes=(4,), batches=(5, 1, 70))
