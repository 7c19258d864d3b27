"""Numbers find their places among sorted ones as in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

BOUNDARIES = np.array([-1.5, 0.0, 0.25, 3.0])
VALUES = np.array([[-9.0, -1.5, -0.0, 0.1, 0.25, 0.3, 3.0, 9.0, np.inf, -np.inf]])


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_a_number_falls_behind_the_boundaries_that_are_not_greater(dtype, tmp_path):
    x = keras.Input((None,), dtype=dtype, name="x")
    model = keras.Model(x, keras.ops.digitize(x, BOUNDARIES))
    values = (VALUES if dtype.startswith("float") else VALUES[:, :8]).astype(dtype)
    (got,) = Exported(model, tmp_path / "m.onnx").run(values)
    np.testing.assert_array_equal(got, np.digitize(values, BOUNDARIES))
    assert got.dtype == "int32"


def test_nan_falls_behind_all_boundaries(tmp_path):
    x = keras.Input((None,), name="x")
    model = keras.Model(x, keras.ops.digitize(x, BOUNDARIES))
    Exported(model, tmp_path / "m.onnx").check(tf.constant([[np.nan, 0.0]]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_places_in_a_sorted_sequence(side, tmp_path):
    x = keras.Input((None,), name="x")
    among = BOUNDARIES.astype("float32")
    model = keras.Model(x, keras.ops.searchsorted(among, x, side=side))
    (got,) = Exported(model, tmp_path / "m.onnx").run(VALUES.astype("float32"))
    np.testing.assert_array_equal(got, np.searchsorted(among, VALUES, side=side))


@pytest.mark.parametrize("mode", ["int", "one_hot", "multi_hot", "count"])
def test_discretization_is_exported_in_every_mode(mode, tmp_path):
    x = keras.Input((3,), name="x")
    layer = keras.layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0], output_mode=mode)
    model = keras.Model(x, layer(x))
    values = tf.constant([[-1.0, 0.5, 0.75], [0.0, 0.0, 9.0]])
    Exported(model, tmp_path / "m.onnx").check(values)
