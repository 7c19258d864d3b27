"""Values for one place are added, as TensorFlow adds them."""

import keras
import numpy as np
import onnx
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


REDUCTIONS = {
    tf.tensor_scatter_nd_add: [15, 12, 10, 18],
    tf.tensor_scatter_nd_sub: [5, 8, 10, 2],
    tf.tensor_scatter_nd_max: [10, 10, 10, 10],
    tf.tensor_scatter_nd_min: [1, 2, 10, 8],
}


@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda reduce: reduce.__name__)
def test_no_reduction_is_left_to_the_parallel_operation(reduce, tmp_path):
    class Reduced(keras.layers.Layer):
        """Ten in four columns, and to these what `reduce` makes of the input's."""

        def call(self, x):
            tens = 10 * tf.ones_like(tf.transpose(x))
            return tf.transpose(reduce(tens, [[i] for i in COLUMNS], tf.transpose(x)))

        def compute_output_shape(self, input_shape):
            return input_shape

    columns = keras.Input((4,), name="columns")
    model = keras.Model(columns, Reduced(name="reduced")(columns))
    export_onnx(model, tmp_path / "model.onnx")
    answer = Model.load(tmp_path / "model.onnx").predict(
        {"columns": np.array([[1, 2, 4, 8]], "float32")}
    )
    np.testing.assert_array_equal(answer["reduced"], [REDUCTIONS[reduce]])
    ops = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert "ScatterND" not in ops


@pytest.mark.parametrize("dtype", ["float32", "float16", "int32"])
def test_values_scattered_to_one_place_are_added(dtype, tmp_path):
    columns = keras.Input((4,), dtype=dtype, name="columns")
    model = keras.Model(columns, SumOfColumns(dtype=dtype, name="sums")(columns))
    export_onnx(model, tmp_path / "model.onnx")
    given = np.array([[1, 2, 4, 8]], dtype)
    answer = Model.load(tmp_path / "model.onnx").predict({"columns": given})
    np.testing.assert_array_equal(answer["sums"], [[5, 2, 0, 8]])
