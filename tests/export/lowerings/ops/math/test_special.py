"""Special functions, sums of other kinds and small integers give what they give in TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

NUMBERS = np.array([[-9.3, -2.5, -0.7, -1e-3, 1e-4, 0.3, 0.5, 1.0, 1.7, 2.0, 6.5, 40.0, 3e4]])
UNIT = np.array([[-1.0, -0.99999, -0.6, -1e-5, 0.0, 0.3, 0.95, 0.9999999, 1.0, 2.0, 0.1, 0.2, 0.4]])


def test_special_functions(tmp_path):
    def every(x, unit):
        math = tf.math
        nothing = tf.where(x > 1, x, tf.zeros_like(x))
        return [
            math.lgamma(x),
            math.digamma(x),
            math.erfinv(unit),
            math.ndtri(tf.abs(unit) * 0.5),
            math.xlogy(nothing, tf.abs(x) - 2),
            math.xlog1py(nothing, x),
            math.xdivy(nothing, nothing),
            math.multiply_no_nan(1 / nothing, nothing),
        ]

    model = function_model(every, (13,), (13,))
    given = [NUMBERS.astype("float32"), UNIT.astype("float32")]
    Exported(model, tmp_path / "m.onnx").check(given, 5e-6)


def test_sums_of_other_kinds(tmp_path):
    def every(x):
        running = tf.math.cumulative_logsumexp
        return [
            running(x, axis=1),
            running(x, axis=1, reverse=True),
            running(x, axis=-1, exclusive=True),
            tf.math.reduce_euclidean_norm(x, 1),
            tf.linalg.cross(x, x[:, ::-1]),
        ]

    exported = Exported(function_model(every, (5, 3)), tmp_path / "m.onnx")
    exported.check(images(2, 5, 3))
    exported.check(100 * images(2, 5, 3))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32"])
def test_small_and_unsigned_integers(dtype, tmp_path):
    def every(x):
        reduced = [reduce(x, 1) for reduce in (tf.reduce_max, tf.reduce_min, tf.reduce_sum)]
        return [*reduced, tf.argmax(x, 1), x + x[:, ::-1], x * x, tf.maximum(x, 3)]

    ends = np.iinfo(dtype)
    x = np.array([[1, 5, ends.max, 2], [ends.min, 0, 3, 1]], dtype)
    model = function_model(every, (4,), dtypes=(dtype,))
    Exported(model, tmp_path / "m.onnx").check(tf.constant(x), 0)


def test_remainders_have_the_sign_of_the_dividend(tmp_path):
    model = function_model(lambda x: tf.truncatemod(x, 3), (4,), dtypes=("int32",))
    (got,) = Exported(model, tmp_path / "m.onnx").run(np.array([[-5, -3, 4, 7]], "int32"))
    np.testing.assert_array_equal(got, [[-2, 0, 1, 1]])
