"""Shapes and values that a model does not take in the usual sizes are tried in others."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

from keras_blocks.export import check_parity, export_onnx, lowers

layers = keras.layers


class Proportion(layers.Layer):
    """Multiplies an image by its height over its width."""

    def call(self, x):
        height, width = self.sides(tf.cast(tf.shape(x), x.dtype))
        return x * (height / width)

    def sides(self, shape):
        return shape[1], shape[2]


class Mistaken(Proportion):
    """The same, with a lowering that takes the height for the width."""


@lowers(Mistaken)
def _take_the_height_for_the_width(layer):
    def call(x):
        height = tf.cast(tf.shape(x)[1], x.dtype)
        return x * (height / height)

    return call


def backbone(first: layers.Layer, *between: layers.Layer) -> keras.Model:
    """`first`, and windows that need some room."""
    image = y = keras.Input((None, None, 3), name="image")
    for layer in (first, *between, layers.Conv2D(4, 3, strides=2), layers.MaxPooling2D(3, 2)):
        y = layer(y)
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def hidden_window() -> list[layers.Layer]:
    """Layers that ask for 44 pixels before such windows, of which the contract knows nothing."""
    return [layers.UpSampling2D(2), layers.Conv2D(4, 40, strides=8)]


def proven(model: keras.Model, folder, verify="fast"):
    export_onnx(model, folder / "model.onnx", verify=False)
    return check_parity(model, folder / "model.onnx", verify=verify)


@pytest.mark.parametrize("between", [list, hidden_window], ids=["known", "hidden"])
def test_a_side_of_an_image_taken_for_the_other_is_caught_where_a_least_size_is(between, tmp_path):
    report = proven(backbone(Mistaken(name="mistaken"), *between()), tmp_path)
    assert not report.ok
    assert report.first_difference.layer == "mistaken"


@pytest.mark.parametrize("between", [list, hidden_window], ids=["known", "hidden"])
def test_models_with_a_least_size_are_proven_on_all_values(between, tmp_path):
    report = proven(backbone(Proportion(), *between()), tmp_path)
    assert report.ok
    assert bool(report.skipped) == (between is hidden_window)
    samples = "; ".join(check.sample for check in report.checks)
    for values in ("pixels", "floats times 10", "zeros in front", "zeros in between"):
        assert values in samples


class BesideItsMask(keras.layers.Layer):
    """Windows over a sound, and a mask of the very same length."""

    def __init__(self):
        super().__init__()
        self.windows = keras.layers.Conv1D(2, 9)

    def build(self, *shapes):
        self.windows.build((None, None, 1))

    def call(self, sound, mask):
        kept = keras.ops.cast(mask, "float32")[:, 8:, None]
        return keras.ops.concatenate([self.windows(sound), kept], axis=-1)

    def compute_output_spec(self, sound, mask):
        return keras.KerasTensor((None, None, 3))


def test_inputs_that_must_be_of_one_length_are_tried_in_one_length(tmp_path):
    given = [keras.Input((None, 1), name="sound"), keras.Input((None,), name="mask")]
    model = keras.Model(given, BesideItsMask()(*given))
    report = export_onnx(model, tmp_path / "m.onnx", verify="fast", verbose=False).parity
    assert {check.input_shapes["sound"][1] for check in report.checks} == {
        check.input_shapes["mask"][1] for check in report.checks
    }
