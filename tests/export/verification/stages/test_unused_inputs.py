"""Inputs that no output depends on are noted, others are not."""

from __future__ import annotations

import keras
import pytest

from keras_blocks.export import export_onnx

layers = keras.layers


def model_of_two(heed: float) -> keras.Model:
    """One input is added to the other, times `heed`."""
    x, extra = keras.Input((4,), name="x"), keras.Input((4,), name="extra")
    joined = layers.Lambda(lambda pair: pair[0] + heed * pair[1], output_shape=(4,))([x, extra])
    return keras.Model([x, extra], layers.Dense(3, name="y")(joined))


@pytest.mark.parametrize("heed", [0.0, 1e-6, 1.0])
def test_an_input_that_does_not_matter_is_noted(heed, tmp_path):
    model = model_of_two(heed)
    report = export_onnx(model, tmp_path / "model.onnx").parity
    assert [note.partition(",")[0] for note in report.notes] == (
        [] if heed else ["No output depends on the input 'extra'"]
    )
    assert report.layers == ()
    assert ("No output depends" in str(report)) == (not heed)
    others = {c.sample.rpartition("in ")[2] for c in report.checks if "other values" in c.sample}
    assert others == {"x", "extra"}


def test_where_no_input_matters_the_layers_are_compared(tmp_path):
    x = keras.Input((4,), name="x")
    y = layers.Dense(3, "tanh", name="heeds")(x)
    model = keras.Model(x, layers.Dense(2, kernel_initializer="zeros", name="ignores")(y))
    report = export_onnx(model, tmp_path / "model.onnx").parity
    assert "not proven by the outputs" in report.notes[0]
    assert [check.layer for check in report.layers][:2] == ["heeds", "ignores"]


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_of_integers_matters(seed, tmp_path):
    keras.utils.set_random_seed(seed)
    x = keras.Input((None, 4), name="x")
    mask = keras.Input((None,), dtype="int32", name="mask")
    seen = keras.ops.cast(mask, "bool")[:, None, :]
    y = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=seen)
    assert export_onnx(keras.Model([x, mask], y), tmp_path / "model.onnx").parity.notes == ()
