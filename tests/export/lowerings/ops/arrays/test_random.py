"""A model that draws random numbers in inference has no file, and is told which layer does so."""

import keras
import pytest

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx


class Noisy(keras.Model):
    """A model that calls a layer as in training."""

    def __init__(self, layer):
        super().__init__(name="noisy")
        self.layer = layer

    def call(self, x):
        return self.layer(x, training=True)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dropout(0.5, name="always_on"),
        keras.layers.GaussianNoise(0.5, name="always_on"),
        keras.layers.SpatialDropout1D(0.5, name="always_on"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_layer_that_draws_is_named_with_what_to_do(layer, tmp_path):
    with pytest.raises(ExportError, match=r"noisy/always_on.*draws random numbers.*training=True"):
        export_onnx(
            Noisy(layer),
            tmp_path / "m.onnx",
            input_signature=[keras.InputSpec("float32", (None, 3, 4))],
            verbose=False,
        )


def test_layers_that_are_random_in_training_only_are_exported(tmp_path):
    x = keras.Input((3, 4), name="x")
    layers = (keras.layers.GaussianNoise(0.5), keras.layers.SpatialDropout1D(0.5))
    export_onnx(keras.Sequential([x, *layers]), tmp_path / "m.onnx", verbose=False)
