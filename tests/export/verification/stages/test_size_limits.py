"""The last sizes that a model takes are compared, and those beyond are known to be refused."""

from __future__ import annotations

import keras
import pytest

from keras_blocks.export import export_onnx
from keras_blocks.export.verification.stages import size_limits as boundaries

layers = keras.layers


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A busy machine takes longer than a proof waits."""
    monkeypatch.setattr(boundaries, "_SECONDS", 60.0)


class Positions(layers.Layer):
    """Adds a vector of its own to each of the first `longest` steps."""

    def __init__(self, longest: int, **kwargs):
        super().__init__(**kwargs)
        self.longest = longest

    def build(self, input_shape):
        self.table = self.add_weight(shape=(self.longest, input_shape[-1]), name="table")

    def call(self, x):
        return x + self.table[: keras.ops.shape(x)[1]]


def sizes_compared(model: keras.Model, folder) -> set[int]:
    report = export_onnx(model, folder / "model.onnx").parity
    return {check.input_shapes["x"][1] for check in report.checks}


@pytest.mark.parametrize("longest", [20, 100])
def test_the_longest_input_that_a_model_takes_is_compared(longest, tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.Dense(3)(Positions(longest)(x)))
    assert max(sizes_compared(model, tmp_path)) == longest


def test_the_shortest_input_that_a_model_takes_is_compared(tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.Conv1D(3, 13)(x))
    assert min(sizes_compared(model, tmp_path)) == 13


def test_fixed_sizes_are_not_searched(tmp_path):
    x = keras.Input((7, 4), name="x")
    assert sizes_compared(keras.Model(x, layers.Dense(3)(x)), tmp_path) == {7}
