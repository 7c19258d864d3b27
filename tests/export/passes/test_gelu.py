"""The gelu becomes the one op that ONNX has for it, wherever in a model it is computed."""

import keras
import pytest
import tensorflow as tf
from onnx_runs import Exported, random_weights, sequences

layers = keras.layers


def tanh_gelu(x):
    return keras.activations.gelu(x, approximate=True)


class Own(layers.Layer):
    def call(self, x):
        return keras.ops.gelu(x, approximate=False)


LAYERS = {
    "activation": lambda: layers.Activation("gelu"),
    "of_a_dense_layer": lambda: layers.Dense(5, activation="gelu"),
    "of_a_convolution": lambda: layers.Conv1D(5, 2, activation="gelu"),
    "in_a_layer_of_ones_own": Own,
    "by_tanh": lambda: layers.Activation(tanh_gelu),
}


def exported_of(layer, path, **options):
    x = keras.Input((None, 6), name="x")
    return Exported(random_weights(keras.Model(x, layer(x))), path / "m.onnx", **options)


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_gelu_is_one_op(layer, tmp_path):
    exported = exported_of(layer(), tmp_path)
    assert exported.ops["Gelu"] == 1
    assert not {"Erf", "Tanh", "Mul"} & set(exported.ops)
    exported.check(3 * sequences(2, 5))


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_before_its_opset_a_gelu_is_written_out(layer, tmp_path):
    exported = exported_of(layer(), tmp_path, opset_version=19)
    assert "Gelu" not in exported.ops
    exported.check(3 * sequences(2, 5))


def test_a_gelu_in_half_precision_is_one_op(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    exported = exported_of(layers.Activation("gelu"), tmp_path)
    assert exported.ops["Gelu"] == 1
    exported.check(sequences(2, 5), tolerance=2e-3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 0.5 * x * tf.math.erfc(-x * 0.6),
        lambda x: 0.4 * x * tf.math.erfc(-x * 0.70710678),
        lambda x: 0.5 * (x + 1) * tf.math.erfc(-x * 0.70710678),
        lambda x: 0.5 * x * (1 + tf.tanh(0.7978845608 * (x + 0.05 * x**3))),
        lambda x: 0.5 * x * (1 + tf.tanh(0.7978845608 * (x + 0.044715 * x**2))),
    ],
    ids=["other_scale", "other_half", "other_factor", "other_coefficient", "other_power"],
)
def test_what_only_looks_like_a_gelu_stays(function, tmp_path):
    exported = exported_of(layers.Lambda(function), tmp_path)
    assert "Gelu" not in exported.ops
    exported.check(sequences(2, 5))


def test_what_else_reads_a_part_of_a_gelu_still_does(tmp_path):
    def both(x):
        erfc = tf.math.erfc(-x * 0.70710678)
        return 0.5 * x * erfc + erfc

    exported = exported_of(layers.Lambda(both), tmp_path)
    assert exported.ops["Gelu"] == exported.ops["Erf"] == 1
    exported.check(sequences(2, 5))
