"""Outputs below the absolute error that passes are proven on larger inputs, or noted."""

from __future__ import annotations

import keras
import pytest

from keras_blocks.export import check_parity, export_onnx, lowers

layers = keras.layers
TELLING = 1e-2  # by so much at most a right file is off
TINY = 1e-8  # of it nothing is above the absolute error of 3e-7 that passes for floats of 32 bits


class Shrunk(layers.Layer):
    """Makes its input tiny."""

    def call(self, x):
        return TINY * x


class Lost(Shrunk):
    """The same, with a lowering that gives zeros."""


@lowers(Lost)
def _give_zeros(layer):
    return lambda x: 0.0 * x


def model_with(*last: layers.Layer) -> keras.Model:
    x = y = keras.Input((4,), name="x")
    for layer in (layers.Dense(3), *last):
        y = layer(y)
    return keras.Model(x, y)


def proven(model: keras.Model, folder, **options):
    export_onnx(model, folder / "model.onnx", verify=False)
    return check_parity(model, folder / "model.onnx", verify="fast", **options)


def test_zeros_for_a_tiny_output_are_caught(tmp_path):
    report = proven(model_with(Lost(name="lost")), tmp_path)
    assert not report.ok
    assert report.first_difference.layer == "lost"


def test_a_tiny_output_that_grows_with_the_inputs_is_proven_without_a_note(tmp_path):
    report = proven(model_with(Shrunk()), tmp_path)
    assert report.ok
    assert report.notes == ()
    large = [check for check in report.checks if "floats times 10000" in check.sample]
    assert len(large) >= 4
    assert max(check.relative_error for check in large) < TELLING


def test_other_models_are_not_tried_on_such_inputs(tmp_path):
    report = proven(model_with(), tmp_path)
    assert not any("0000" in check.sample for check in report.checks)


def test_zeros_are_caught_where_no_input_makes_the_output_larger(tmp_path):
    assert not proven(model_with(layers.ReLU(6.0), Lost()), tmp_path).ok


def test_a_right_file_passes_where_no_input_makes_the_output_larger(tmp_path):
    report = proven(model_with(layers.ReLU(6.0), Shrunk()), tmp_path)
    assert report.ok
    assert report.notes == ()


class Mean(layers.Layer):
    """Of a vector that was normalized this is nothing but rounding."""

    def call(self, x):
        return keras.ops.mean(x, -1, keepdims=True)


@pytest.mark.parametrize("last", [[], [layers.ReLU()]], ids=["", "relu"])
def test_an_output_of_nothing_but_rounding_passes_with_a_note(last, tmp_path):
    keras.utils.set_random_seed(0)
    wide = [layers.Dense(32, "tanh"), layers.LayerNormalization(), Mean()]
    report = proven(model_with(*wide, *last), tmp_path)
    assert report.ok
    assert [note for note in report.notes if "proven no closer" in note]


def rare(bias: float) -> list[layers.Layer]:
    return [layers.Dense(3, "sigmoid", bias_initializer=keras.initializers.Constant(bias))]


DIFFERENCES = {
    "a sigmoid that runs out": lambda: rare(-14),
    "what a sigmoid lacks": lambda: [*rare(10), layers.Rescaling(-1.0, 1.0)],
    "a sum that is 1": lambda: [
        layers.Softmax(),
        layers.Dense(1, use_bias=False, kernel_initializer="ones"),
        layers.Rescaling(1.0, -1.0),
    ],
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", DIFFERENCES)
def test_what_is_left_of_terms_of_one_is_right_within_their_rounding(case, seed, tmp_path):
    keras.utils.set_random_seed(seed)
    assert proven(model_with(*DIFFERENCES[case]()), tmp_path).ok


def test_a_tolerance_that_is_given_is_kept_to(tmp_path):
    report = proven(model_with(Lost()), tmp_path, atol=1e-3)
    assert report.ok
    assert report.notes == ()
