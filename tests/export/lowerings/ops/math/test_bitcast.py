"""The sign of floats is kept, of zeros and infinities too."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

SUBNORMAL = 1e-42
VALUES = np.array(
    [[3.0, -3.0, 0.0, -0.0, np.inf, -np.inf, SUBNORMAL, -SUBNORMAL, 1e38, -1e38]], "float32"
)


def test_the_sign_bit_is_that_of_numpy(tmp_path):
    x = keras.Input((None,), name="x")
    exported = Exported(keras.Model(x, keras.ops.signbit(x)), tmp_path / "m.onnx")
    (got,) = exported.run(VALUES)
    # onnxruntime takes a subnormal number for 0 in comparisons on some processors.
    np.testing.assert_array_equal(got, np.signbit(VALUES))


@pytest.mark.parametrize("function", ["argmax", "argmin"])
@pytest.mark.parametrize("axis", [None, 1, -1])
def test_the_place_of_an_extreme_is_an_output_like_others(function, axis, tmp_path):
    x = keras.Input((None, 5), name="x")
    model = keras.Model(x, getattr(keras.ops, function)(x, axis=axis))
    exported = Exported(model, tmp_path / "m.onnx")
    values = np.random.default_rng(0).integers(-2, 3, (2, 4, 5)).astype("float32")
    values[0, :, 2] = -0.0
    (got,) = exported.run(values)
    np.testing.assert_array_equal(got, np.asarray(model(values)))


def test_other_bits_are_refused_by_name(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.ops.view(x, "int32"))
    with pytest.raises(ExportError, match="takes the bits of its input"):
        export_onnx(model, tmp_path / "m.onnx")


def test_a_bit_that_is_not_the_sign_is_refused(tmp_path):
    x = keras.Input((4,), name="x")
    lowest = keras.layers.Lambda(lambda z: tf.bitwise.bitwise_and(tf.bitcast(z, tf.int32), 1))
    with pytest.raises(ExportError, match="takes the bits of its input"):
        export_onnx(keras.Model(x, lowest(x)), tmp_path / "m.onnx")
