"""Values for one place are added, as TensorFlow adds them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_blocks.export import export_onnx
from keras_blocks.serving import Model

COLUMNS = [0, 1, 0, 3]


class SumOfColumns(keras.layers.Layer):
    """(batch, 4) to (batch, 4): column i goes to column COLUMNS[i]."""

    def call(self, x):
        shape = tf.stack([4, tf.shape(x)[0]])
        return tf.transpose(tf.scatter_nd([[i] for i in COLUMNS], tf.transpose(x), shape))

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_values_scattered_to_one_place_are_added(dtype, tmp_path):
    columns = keras.Input((4,), dtype=dtype, name="columns")
    model = keras.Model(columns, SumOfColumns(dtype=dtype, name="sums")(columns))
    export_onnx(model, tmp_path / "model.onnx")
    given = np.array([[1, 2, 4, 8]], dtype)
    answer = Model.load(tmp_path / "model.onnx").predict({"columns": given})
    np.testing.assert_array_equal(answer["sums"], [[5, 2, 0, 8]])
