"""What onnxruntime knows in float32 alone is written out for models in float64."""

import keras
import numpy as np
import pytest

from keras_blocks.export import export_onnx

layers = keras.layers

LAYERS = {
    "conv": lambda: layers.Conv2D(3, (3, 2)),
    "no bias": lambda: layers.Conv2D(3, 2, use_bias=False),
    "same": lambda: layers.Conv2D(3, 4, padding="same"),
    "same, strides": lambda: layers.Conv2D(3, (3, 2), strides=2, padding="same"),
    "strides past the window": lambda: layers.Conv2D(3, 2, strides=3),
    "dilated": lambda: layers.Conv2D(3, 2, dilation_rate=(2, 3), padding="same"),
    "groups": lambda: layers.Conv2D(6, 2, groups=2),
    "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same"),
    "depthwise, several": lambda: layers.DepthwiseConv2D(2, strides=2, depth_multiplier=3),
    "separable": lambda: layers.SeparableConv2D(5, 3, padding="same"),
    "mean": lambda: layers.AveragePooling2D(2),
    "mean, same": lambda: layers.AveragePooling2D(3, strides=2, padding="same"),
    "leaky_relu": lambda: layers.LeakyReLU(0.2),
    "elu": lambda: layers.ELU(0.7),
    "selu": lambda: layers.Activation("selu"),
    "softplus": lambda: layers.Activation("softplus"),
    "softsign": lambda: layers.Activation("softsign"),
    "mish": lambda: layers.Activation("mish"),
    "log_sigmoid": lambda: layers.Activation("log_sigmoid"),
    "norm": lambda: layers.LayerNormalization(),
}
OVER_TIME = {
    "causal": lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2),
    "mean over time": lambda: layers.AveragePooling1D(2, padding="same"),
}


@pytest.fixture(autouse=True)
def in_float64():
    keras.config.set_dtype_policy("float64")


def random_model(shape, layer) -> keras.Model:
    x = keras.Input(shape, dtype="float64", name="x")
    model, generator = keras.Model(x, layer(x)), np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(size=weight.shape))
    return model


def is_proven_in_float64(model, path, **options) -> bool:
    result = export_onnx(model, path, **options)
    return result.parity.ok and "float64" in result.parity.tolerance


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("sizes", [(None, None), (9, 8)], ids=["free", "fixed"])
def test_a_layer_of_images_is_right_in_float64(case, sizes, tmp_path):
    model = random_model((*sizes, 4), LAYERS[case]())
    assert is_proven_in_float64(model, tmp_path / "m.onnx", verify="fast")


@pytest.mark.parametrize("case", OVER_TIME)
def test_a_layer_over_time_is_right_in_float64(case, tmp_path):
    assert is_proven_in_float64(random_model((None, 4), OVER_TIME[case]()), tmp_path / "m.onnx")


@pytest.mark.parametrize("opset", [18, 28])
def test_a_network_is_right_in_float64_at_any_opset(opset, tmp_path):
    network = [
        layers.Conv2D(4, 3, padding="same", use_bias=False),
        layers.BatchNormalization(),
        layers.LeakyReLU(),
        layers.AveragePooling2D(2),
        layers.Conv2D(3, 3, strides=2, padding="same", activation="softplus"),
        layers.GlobalAveragePooling2D(),
    ]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((None, None, 2), dtype="float64"), *network])
    assert is_proven_in_float64(model, tmp_path / "m.onnx", opset_version=opset)


def test_the_same_layers_in_float32_stay_as_they_are(tmp_path):
    keras.config.set_dtype_policy("float32")
    x = keras.Input((9, 8, 4))
    model = keras.Model(x, layers.ELU()(layers.Conv2D(3, 3)(x)))
    ops = export_onnx(model, tmp_path / "m.onnx", verify="fast").op_counts
    assert ops["Conv"] == ops["Elu"] == 1
