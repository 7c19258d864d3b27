"""One-hot vectors along any axis, of any element type; an index of no class gives none."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

INDICES = np.array([[0, 2, -1], [3, 1, 7]], "int32")
DEPTH = 4


def expected():
    """A plain loop."""
    vectors = np.zeros((*INDICES.shape, DEPTH))
    for place, index in np.ndenumerate(INDICES):
        if 0 <= index < DEPTH:
            vectors[(*place, index)] = 1
    return vectors


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int32", "int64", "bool"])
def test_an_index_is_hot_in_its_class_alone(axis, dtype, tmp_path):
    x = keras.Input((3,), dtype="int32", name="x")
    model = keras.Model(x, keras.ops.one_hot(x, DEPTH, axis=axis, dtype=dtype))
    (got,) = Exported(model, tmp_path / "m.onnx").run(INDICES)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, np.moveaxis(expected(), -1, axis))


def test_the_values_may_be_others_than_one_and_zero(tmp_path):
    x = keras.Input((3,), dtype="int64", name="x")
    layer = keras.layers.Lambda(
        lambda z: tf.one_hot(z, DEPTH, on_value=0.5, off_value=-2.0), output_shape=(3, DEPTH)
    )
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    (got,) = exported.run(INDICES.astype("int64"))
    np.testing.assert_array_equal(got, np.where(expected() > 0, 0.5, -2.0))


def test_an_integer_lookup_gives_one_hot_rows_of_any_rank(tmp_path):
    x = keras.Input((2, 3), dtype="int64", name="x")
    layer = keras.layers.IntegerLookup(vocabulary=[5, 7, 9], output_mode="one_hot")
    exported = Exported(keras.Model(x, layer(x)), tmp_path / "m.onnx")
    exported.check(np.array([[[5, 7, 1], [9, 9, 0]]], "int64"))
