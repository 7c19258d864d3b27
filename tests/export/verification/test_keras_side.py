"""Keras's side of a proof."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_blocks.export import export_onnx
from keras_blocks.export.verification.keras_side import KerasRunner
from keras_blocks.export.verification.padding import proven_signature
from keras_blocks.runtime.runner import SampleRejectedError


def test_an_export_with_its_proof_traces_a_model_twice(tmp_path):
    traces = []

    class Counted(keras.layers.Layer):
        def call(self, x):
            if not tf.executing_eagerly():
                traces.append(x.shape)
            return 2 * x

    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, Counted()(x))
    traces.clear()
    export_onnx(model, tmp_path / "m.onnx", verbose=False)
    # As it is, which the proof runs, and with native layers, which the file is made of.
    assert len(traces) == 2


def test_a_trace_gives_what_the_model_gives_in_the_order_of_the_contract():
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, {"double": 2 * x, "a_sum": keras.ops.sum(x, axis=1)})
    signature = proven_signature(model)
    side = KerasRunner(model, signature, signature.traced)
    feed = {"x": np.arange(12, dtype="float32").reshape(2, 2, 3)}
    names = [tensor.name for tensor in signature.contract.flat_outputs()]
    got = dict(zip(names, side.run(feed), strict=True))
    np.testing.assert_array_equal(got["double"], 2 * feed["x"])
    np.testing.assert_array_equal(got["a_sum"], feed["x"].sum(axis=1))


def test_what_is_shorter_than_the_windows_inside_never_reaches_tensorflow():
    x = keras.Input((None, None, 3), name="x")
    model = keras.Model(x, keras.layers.MaxPooling2D(3, 2)(keras.layers.Conv2D(2, 3)(x)))
    signature = proven_signature(model)
    side = KerasRunner(model, signature, signature.traced)
    assert side.run({"x": np.ones((1, 5, 6, 3), "float32")})[0].shape == (1, 1, 1, 2)
    with pytest.raises(SampleRejectedError, match="axis 1 of 'x' must be 5 at least"):
        side.run({"x": np.ones((1, 4, 6, 3), "float32")})


def test_a_counter_in_a_layer_is_no_random_draw(tmp_path):
    class Counted(keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(initializer="zeros", trainable=False, name="calls")

        def call(self, x):
            self.calls.assign_add(1.0)
            return x + self.calls

    x = keras.Input((3,), name="x")
    model = keras.Model(x, Counted()(x))
    before = model.weights[0].numpy()
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast", verbose=False).parity.ok
    assert model.weights[0].numpy() == before
