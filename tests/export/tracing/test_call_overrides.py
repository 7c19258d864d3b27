"""Layers in every form of call: the watching and the replacing must not notice."""

import inspect

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.signature.signature import signature_of
from keras_blocks.export.tracing.call_overrides import first_in_place, overridden_calls, own_call

layers = keras.layers
IDS, SEQUENCE, IMAGE, VOLUME = (3,), (4, 6), (8, 8, 4), (8, 8, 8, 2)
FREE_CONV = {"filters": 2, "kernel_size": 2}
# Each stock layer of one tensor that a hook or a lowering of ours is for, and some of other kinds.
ONE_TENSOR = {
    "ids": (IDS, [lambda: layers.Embedding(6, 4), lambda: layers.ReversibleEmbedding(6, 4),
                  lambda: kb.Embedding(6, 4), lambda: layers.CategoryEncoding(6)]),
    "sequences": (SEQUENCE, [
        lambda: layers.Dense(3), lambda: layers.EinsumDense("abc,cd->abd", (None, 3)),
        lambda: kb.Vanilla(3), lambda: layers.Masking(), lambda: layers.LayerNormalization(),
        lambda: layers.RMSNormalization(), lambda: layers.UnitNormalization(),
        lambda: layers.BatchNormalization(), lambda: layers.GroupNormalization(2),
        lambda: layers.Conv1D(**FREE_CONV), lambda: layers.SeparableConv1D(**FREE_CONV),
        lambda: layers.DepthwiseConv1D(2), lambda: layers.Conv1DTranspose(**FREE_CONV),
        lambda: layers.MaxPooling1D(), lambda: layers.AveragePooling1D(2),
        lambda: layers.GlobalMaxPooling1D(), lambda: layers.GlobalAveragePooling1D(),
        lambda: layers.LSTM(3), lambda: layers.GRU(3, return_sequences=True),
        lambda: layers.SimpleRNN(3), lambda: layers.Bidirectional(layers.LSTM(3)),
        lambda: layers.TimeDistributed(layers.Dense(3)), lambda: kb.GRU(3), lambda: kb.LSTM(3),
        lambda: layers.Flatten(), lambda: layers.Reshape((6, 4)), lambda: layers.Permute((2, 1)),
        lambda: layers.ZeroPadding1D(1), lambda: layers.Cropping1D(1),
        lambda: layers.UpSampling1D(2), lambda: layers.Softmax(), lambda: layers.PReLU(),
        lambda: layers.LeakyReLU(), lambda: layers.ELU(), lambda: layers.Activation("gelu"),
        lambda: layers.Dropout(0.5), lambda: layers.SpatialDropout1D(0.5),
        lambda: layers.Rescaling(2.0), lambda: layers.Identity(),
        lambda: layers.ActivityRegularization(1.0),
    ]),
    "images": (IMAGE, [
        lambda: layers.Conv2D(**FREE_CONV), lambda: layers.SeparableConv2D(**FREE_CONV),
        lambda: layers.DepthwiseConv2D(2), lambda: layers.Conv2DTranspose(**FREE_CONV),
        lambda: layers.MaxPooling2D(), lambda: layers.AveragePooling2D(2),
        lambda: layers.GlobalMaxPooling2D(), lambda: layers.GlobalAveragePooling2D(),
        lambda: layers.AdaptiveAveragePooling2D(2), lambda: layers.UpSampling2D(2),
        lambda: layers.ZeroPadding2D(1), lambda: layers.Cropping2D(1),
        lambda: layers.CenterCrop(4, 4), lambda: layers.Resizing(4, 4),
        lambda: layers.SpectralNormalization(layers.Conv2D(**FREE_CONV)),
    ]),
    "volumes": (VOLUME, [
        lambda: layers.Conv3D(**FREE_CONV), lambda: layers.MaxPooling3D(),
        lambda: layers.AveragePooling3D(2), lambda: layers.GlobalMaxPooling3D(),
        lambda: layers.GlobalAveragePooling3D(), lambda: layers.Conv3DTranspose(**FREE_CONV),
    ]),
}  # fmt: skip


class InEveryForm(layers.Layer):
    """Calls a layer by place, by name, through `**kwargs`, on a constant and on a weight."""

    def __init__(self, layer, constant):
        super().__init__()
        self.layer, self.constant = layer, constant
        self.first = next(iter(inspect.signature(layer.call).parameters))

    def build(self, shape):
        self.layer.build(shape)
        dtype = self.constant.dtype.name
        self.weight = self.add_weight(
            shape=self.constant.shape, dtype=dtype, initializer="ones", trainable=False
        )
        if dtype == "float32":
            self.weight.assign(self.constant)

    def call(self, x):
        options = {self.first: x}
        by_place = [self.layer(given) for given in (x, self.constant, self.weight)]
        # Some have a `__call__` of their own, which takes the first argument by place only.
        by_name = type(self.layer).__call__ is layers.Layer.__call__
        return [*by_place, self.layer(**options)] if by_name else by_place


def runs(model, feed):
    """What Keras and onnxruntime give."""
    proto = to_onnx(model, signature_of(model))
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    found = session.run(None, {session.get_inputs()[0].name: feed})
    return [np.asarray(y) for y in keras.tree.flatten(model(feed))], found


@pytest.mark.parametrize("kind", ONE_TENSOR)
def test_stock_layers_may_be_called_in_any_form(kind):
    shape, makers = ONE_TENSOR[kind]
    generator = np.random.default_rng(0)
    dtype = "int32" if kind == "ids" else "float32"
    draw = generator.normal(size=(2, 2, *shape)) if kind != "ids" else [[[0, 5, 1]] * 2] * 2
    feed, constant = np.asarray(draw, dtype)
    given = keras.Input(shape, dtype=dtype)
    model = keras.Model(
        given, [InEveryForm(make(), tf.constant(constant))(given) for make in makers]
    )
    for wanted, got in zip(*runs(model, feed), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


class CallsByName(layers.Layer):
    """Calls another layer by the name of its first argument."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(inputs=x)


class Anything(layers.Layer):
    """Takes its tensors in a nest, by names of its own."""

    def call(self, **tensors):
        return tensors["parts"][0] + tensors["parts"][1]["other"]


class Halves(layers.Layer):
    """Calls an own layer by names only, with a nest."""

    def __init__(self):
        super().__init__()
        self.inner = Anything()

    def call(self, x):
        return self.inner(parts=[x, {"other": 2 * x}])


def test_a_layer_may_take_nests_by_names_of_its_own():
    given = keras.Input((3,))
    (wanted,), (got,) = runs(keras.Model(given, Halves()(given)), np.float32([[1, 2, 3]]))
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("quantised", [False, True])
def test_ids_that_are_given_by_name_have_the_range_of_the_vocabulary(quantised):
    given = keras.Input((None,), dtype="int32")
    embedding = layers.Embedding(6, 16)
    model = keras.Model(given, CallsByName(embedding)(given))
    if quantised:
        embedding.quantize("int8")
    (spec,) = signature_of(model).contract.inputs
    assert (spec.minimum, spec.maximum) == (0, 5)


def test_what_looks_for_words_reads_no_ids():
    embedding = layers.ReversibleEmbedding(6, 4)
    embedding.build((None, 3))
    given = keras.Input((3, 4))
    (spec,) = signature_of(keras.Model(given, embedding(given, reverse=True))).contract.inputs
    assert (spec.minimum, spec.maximum) == (None, None)


def test_ids_in_a_loop_are_none_of_the_inputs_that_are_called_so():
    class Loop(layers.Layer):
        def __init__(self):
            super().__init__()
            self.embedding = layers.Embedding(6, 4)

        def build(self, shape):
            self.embedding.build(shape)

        def call(self, x):
            ids = tf.constant([1, 2])
            step = lambda i, kept: (i + 1, kept + tf.reduce_sum(self.embedding((ids + i) % 6)))  # noqa: E731
            return x * tf.while_loop(lambda i, _: i < 3, step, [0, 0.0])[1]

    given = keras.Input((3,))
    (spec,) = signature_of(keras.Model(given, Loop()(given))).contract.inputs
    assert (spec.minimum, spec.maximum) == (None, None)


def test_a_replaced_call_of_a_quantised_layer_is_the_one_that_keras_makes():
    given = keras.Input((3,))
    model = keras.Model(given, layers.Dense(2)(given))
    model.layers[1].quantize("int8")
    seen = []

    def watching(layer):
        call = own_call(layer)
        return lambda *args: (seen.append(layer.name), call(*args))[1]

    with overridden_calls(model, watching):
        model(np.ones((1, 3), "float32"))
    assert model.layers[1].name in seen
    assert "quantized_call" not in model.layers[1].__dict__


def test_the_first_argument_goes_to_the_first_place():
    layer = layers.Dense(2)
    assert first_in_place(layer, (), {"inputs": 1, "training": True}) == ((1,), {"training": True})
    assert first_in_place(layer, (1,), {"training": True}) == ((1,), {"training": True})
    assert first_in_place(Anything(), (), {"parts": 1}) == ((), {"parts": 1})
