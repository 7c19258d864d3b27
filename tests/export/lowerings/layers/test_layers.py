"""Ordinary layers, each in a model of its own, give the same through their file."""

import cases
import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, random_weights, sequences

import keras_blocks as kb
from keras_blocks.export import export_onnx

layers = keras.layers
IMAGE, SEQUENCE, VECTOR = (None, None, 4), (None, 6), (6,)


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(size=(20, 6)))
    return layer


class Scaled(layers.Layer):
    """Closes over an eager tensor, as the layers of many published models do."""

    scale = tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    def call(self, x):
        return x * self.scale


class Compiled(layers.Layer):
    @tf.function(jit_compile=True)
    def call(self, x):
        return tf.exp(x) + 1.0


LAYERS = {
    "dense_relu": (VECTOR, lambda: layers.Dense(3, "relu")),
    "dense_on_sequence": (SEQUENCE, lambda: layers.Dense(3, "softmax")),
    "exact_gelu": (VECTOR, lambda: layers.Activation("gelu")),
    "celu": (VECTOR, lambda: layers.Activation("celu")),
    "swish": (VECTOR, lambda: layers.Activation("swish")),
    "leaky_relu": (VECTOR, lambda: layers.LeakyReLU()),
    "prelu": (VECTOR, lambda: layers.PReLU()),
    "softmax": (SEQUENCE, lambda: layers.Softmax(axis=1)),
    "dropout": (VECTOR, lambda: layers.Dropout(0.5)),
    "noise": (VECTOR, lambda: layers.GaussianNoise(1.0)),
    "normalization": (VECTOR, adapted),
    "captured_constant": (VECTOR, Scaled),
    "compiled_function": (VECTOR, Compiled),
    "batch_norm": (IMAGE, lambda: layers.BatchNormalization()),
    "layer_norm": (SEQUENCE, lambda: layers.LayerNormalization()),
    "group_norm": (IMAGE, lambda: layers.GroupNormalization(2)),
    "rms_norm": (SEQUENCE, lambda: layers.RMSNormalization()),
    "conv_1d": (SEQUENCE, lambda: layers.Conv1D(3, 2, padding="causal", dilation_rate=2)),
    "conv_2d": (IMAGE, lambda: layers.Conv2D(3, 3, strides=2, padding="same")),
    "conv_3d": ((5, 6, 7, 2), lambda: layers.Conv3D(3, 2)),
    "conv_2d_grouped": (IMAGE, lambda: layers.Conv2D(4, 3, groups=2)),
    "conv_2d_transposed": ((6, 6, 4), lambda: layers.Conv2DTranspose(3, 3, strides=2)),
    "conv_2d_depthwise": (IMAGE, lambda: layers.DepthwiseConv2D(3)),
    "conv_2d_separable": (IMAGE, lambda: layers.SeparableConv2D(3, 3)),
    "max_pooling": (IMAGE, lambda: layers.MaxPooling2D(2)),
    "average_pooling": (IMAGE, lambda: layers.AveragePooling2D(2, padding="same")),
    "global_max_pooling": (IMAGE, lambda: layers.GlobalMaxPooling2D()),
    "global_average_pooling": (SEQUENCE, lambda: layers.GlobalAveragePooling1D()),
    "up_sampling": (IMAGE, lambda: layers.UpSampling2D(2)),
    "zero_padding": (IMAGE, lambda: layers.ZeroPadding2D(1)),
    "cropping": (IMAGE, lambda: layers.Cropping2D(1)),
    "flatten": ((3, 4), lambda: layers.Flatten()),
    "reshape": ((3, 4), lambda: layers.Reshape((2, 6))),
    "permute": (SEQUENCE, lambda: layers.Permute((2, 1))),
    "repeat": (VECTOR, lambda: layers.RepeatVector(3)),
    "rescaling": (VECTOR, lambda: layers.Rescaling(0.5, 1.0)),
    "time_distributed": (SEQUENCE, lambda: layers.TimeDistributed(layers.Dense(3))),
    "time_distributed_conv": (
        (None, 5, 5, 2),
        lambda: layers.TimeDistributed(layers.Conv2D(3, 3)),
    ),
    "time_distributed_gru": (
        (None, None, 3),
        lambda: layers.TimeDistributed(kb.GRU(4, return_sequences=True)),
    ),
}


def model_of(shape, layer):
    x = keras.Input(shape, name="x")
    return random_weights(keras.Model(x, layer(x)))


@pytest.mark.parametrize(("shape", "layer"), LAYERS.values(), ids=LAYERS)
def test_a_stock_layer_gives_the_same_through_its_file(shape, layer, tmp_path):
    exported = Exported(model_of(shape, layer()), tmp_path / "m.onnx")
    assert not {"Loop", "Scan"} & set(exported.ops)
    generator = np.random.default_rng(0)
    for batch, free in [(1, 6), (3, 7)]:
        sizes = [free if size is None else size for size in shape]
        exported.check(tf.constant(generator.normal(size=(batch, *sizes)).astype("float32")))


def test_attention_gives_the_same_through_its_file(tmp_path):
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None,), dtype="bool", name="mask")
    h = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask[:, None, :])
    h = layers.LayerNormalization()(x + h)
    exported = Exported(random_weights(keras.Model([x, mask], h)), tmp_path / "m.onnx")
    keep = tf.constant([[True, True, False, True, False]] * 2)
    exported.check([sequences(2, 5), keep])


def test_attention_over_two_axes_exports_in_no_time(tmp_path):
    x = keras.Input((4, 5, 6), name="x")
    h = layers.MultiHeadAttention(2, 4, attention_axes=(1, 2))(x, x)
    exported = Exported(random_weights(keras.Model(x, h)), tmp_path / "m.onnx")
    exported.check(tf.reshape(sequences(8, 5), (2, 4, 5, 6)))


def test_a_dense_layer_on_a_sequence_is_one_product(tmp_path):
    exported = Exported(model_of(SEQUENCE, layers.Dense(3)), tmp_path / "m.onnx")
    assert exported.ops == {"MatMul": 1, "Add": 1}


def test_an_embedding_is_one_gather(tmp_path):
    ids = keras.Input((None,), dtype="int32", name="ids")
    exported = Exported(keras.Model(ids, layers.Embedding(9, 3)(ids)), tmp_path / "m.onnx")
    assert exported.ops == {"Gather": 1}
    exported.check(np.array([[0, 8, -1]], "int32"))


def test_selection_does_not_spread_what_was_not_selected(tmp_path):
    x = keras.Input((4,), name="x")
    safe = layers.Lambda(lambda z: tf.where(z > 0, tf.math.log(z), -1.0))
    exported = Exported(keras.Model(x, safe(x)), tmp_path / "m.onnx")
    exported.check(tf.constant([[1.0, 0.0, -1.0, 2.0]]))


def test_integers_are_compared_and_divided_exactly(tmp_path):
    a, b = (keras.Input((4,), dtype="int64", name=name) for name in "ab")
    both = layers.Lambda(lambda z: [z[0] < z[1], z[0] == z[1], z[0] // z[1], z[0] % z[1]])
    exported = Exported(keras.Model([a, b], both([a, b])), tmp_path / "m.onnx")
    large = 2**40
    exported.check(
        [
            tf.constant([[large, large + 1, -1, -7]], tf.int64),
            tf.constant([[large + 1, large, 2, 2]], tf.int64),
        ]
    )


def test_an_axis_of_no_size_stays_one(tmp_path):
    x = keras.Input((None, 6), name="x")
    model = keras.Model(x, layers.Lambda(lambda z: tf.reshape(z, (-1, tf.shape(z)[1], 3, 2)))(x))
    Exported(model, tmp_path / "m.onnx").check(tf.zeros([2, 0, 6]))


def test_nested_and_shared_models_are_right(tmp_path):
    inner = keras.Sequential([keras.Input((None, 6)), kb.LSTM(4, return_sequences=True)])
    x, y = keras.Input((None, 6), name="x"), keras.Input((None, 6), name="y")
    outer = keras.Model({"x": x, "y": y}, {"a": inner(x), "b": layers.Dense(2)(inner(y))})
    exported = Exported(random_weights(outer), tmp_path / "m.onnx")
    assert exported.ops["LSTM"] == 2
    exported.check({"x": sequences(2, 3), "y": sequences(2, 5, seed=1)})


@pytest.mark.parametrize("case", cases.CASES, ids=lambda case: case.name)
def test_every_block_is_proven(case, tmp_path):
    result = export_onnx(random_weights(case.model()), tmp_path / "m.onnx")
    ops = set(result.op_counts)
    assert set(case.onnx_ops) <= ops
    assert not set(case.no_onnx_ops) & ops
