"""Graphs are traced anew: cases, branches and loops are entered, and constants are folded."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, Function, function_model, images

X = images(3, 5, 4)


def test_each_case_of_a_switch_is_a_branch_and_beyond_them_is_the_last(tmp_path):
    def switched(x, index):
        branches = [lambda t: t + 1, lambda t: 2 * t, lambda t: -t]
        return tf.switch_case(index[0, 0], [lambda b=b: b(x) for b in branches])

    model = function_model(switched, (5, 4), (1,), dtypes=("float32", "int32"))
    exported = Exported(model, tmp_path / "m.onnx")
    expected = [X + 1, 2 * X, -X, -X]
    for index, want in enumerate(expected):
        (got,) = exported.run([X, np.full((3, 1), index, "int32")])
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("steps", [4, 5])
def test_an_associative_scan_has_a_known_rank(steps, tmp_path):
    x = keras.Input((steps, 4), name="x")

    class Products(keras.layers.Layer):
        def call(self, x):
            return keras.ops.associative_scan(lambda a, b: a * b, x, axis=1)

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    (got,) = Exported(keras.Model(x, Products()(x)), tmp_path / "m.onnx").run(X[:, :steps])
    np.testing.assert_allclose(got, np.cumprod(X[:, :steps], 1), rtol=1e-5)


def test_weights_and_lookups_of_a_graph_that_is_traced_anew_stay(tmp_path):
    x, ids = keras.Input((5, 4), name="x"), keras.Input((5,), dtype="int64", name="ids")
    y = keras.layers.Dense(4, bias_initializer="normal")(x)
    y = Function(lambda y: tf.linalg.set_diag(y[:, :4], y[:, 0]))(y)
    found = keras.layers.IntegerLookup(vocabulary=[7, 9])(ids)
    exported = Exported(keras.Model([x, ids], [y, found]), tmp_path / "m.onnx")
    assert exported.input_names == ["x", "ids"]
    exported.check([X, tf.constant([[7, 9, 1, 7, 2]] * 3, "int64")])
