"""Transposed convolutions give the size and the values that Keras gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import TOLERANCE, Exported, images, random_weights

layers = keras.layers

# Kernel and stride: the stride within the kernel, past it, and at its width.
GEOMETRIES = {"within": (3, 2), "past": (2, 3), "far_past": (1, 4), "equal": (3, 3), "even": (4, 2)}


def model_of(layer, *sizes):
    x = keras.Input((*sizes, 2), name="x")
    return random_weights(keras.Model(x, layer(x)))


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("sizes", [(None, None), (5, 6)], ids=["free", "fixed"])
def test_any_stride_and_padding_gives_the_same(sizes, kernel, stride, padding, tmp_path):
    layer = layers.Conv2DTranspose(3, kernel, stride, padding)
    exported = Exported(model_of(layer, *sizes), tmp_path / "m.onnx")
    for free in [(5, 6), (1, 7)] if None in sizes else [sizes]:
        exported.check(images(2, *free, 2))


@pytest.mark.parametrize("output_padding", [0, 1])
def test_a_given_output_padding_is_kept_to(output_padding, tmp_path):
    layer = layers.Conv2DTranspose(3, 3, 2, "same", output_padding=output_padding)
    exported = Exported(model_of(layer, None, None), tmp_path / "m.onnx")
    exported.check(images(2, 5, 4, 2))


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_sequence_is_transposed_too(dilation, tmp_path):
    layer = layers.Conv1DTranspose(3, 3, padding="same", dilation_rate=dilation)
    exported = Exported(model_of(layer, None), tmp_path / "m.onnx")
    inputs = images(2, 7, 2)
    (got,) = exported.run(inputs)
    kernel, bias = layer.get_weights()
    wide = np.zeros((2, 7 + 2 * dilation, 3))  # "same" keeps its middle
    for place, taken in enumerate(kernel):
        wide[:, place * dilation : place * dilation + 7] += inputs.numpy() @ taken.T
    np.testing.assert_allclose(got, wide[:, dilation : dilation + 7] + bias, atol=TOLERANCE)
    if tensorflow_runs(layer, inputs):
        exported.check(inputs)


def tensorflow_runs(layer, inputs):
    """Whether TensorFlow has the layer on this machine: without oneDNN it knows no dilation."""
    try:
        layer(inputs)
    except tf.errors.InvalidArgumentError as error:
        if "do not yet support" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("sizes", [(None, None, None), (3, 4, 5)], ids=["free", "fixed"])
def test_a_volume_is_transposed_too(sizes, tmp_path):
    layer = layers.Conv3DTranspose(3, 2, 3, "same")
    Exported(model_of(layer, *sizes), tmp_path / "m.onnx").check(images(2, 3, 4, 5, 2))


def test_known_sizes_need_one_node_between_the_transposes(tmp_path):
    model = model_of(layers.Conv2DTranspose(3, 2, 3, "same"), 5, 5)
    assert Exported(model, tmp_path / "m.onnx").ops == {"Transpose": 2, "ConvTranspose": 1}
