"""Values for one place are added, as TensorFlow adds them."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx_runs import Exported

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


CELLS = [[0, 1], [1, 0], [0, 1], [1, 2]]  # of 2 rows of 3


class InCells(keras.layers.Layer):
    """(batch, 4, 5) to (2, 3, batch, 5): what `reduce` makes of tens and the input's four parts."""

    def __init__(self, reduce, cells, **options):
        super().__init__(**options)
        self.reduce, self.cells = reduce, np.array(cells)

    def call(self, x):
        parts = tf.transpose(x, [1, 0, 2])
        shape = tf.concat([self.cells.shape[:-1], tf.shape(parts)[1:]], axis=0)
        tens = 10 * tf.ones(tf.concat([[2, 3], tf.shape(parts)[1:]], axis=0), x.dtype)
        return self.reduce(tens, self.cells, tf.reshape(parts, shape))

    def compute_output_shape(self, input_shape):
        return (2, 3, None, 5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("cells", [CELLS, np.reshape(CELLS, (2, 2, 2))], ids=["list", "table"])
@pytest.mark.parametrize("reduce", REDUCTIONS, ids=lambda reduce: reduce.__name__)
def test_places_may_name_several_axes(reduce, cells, dtype, tmp_path):
    x = keras.Input((4, 5), dtype=dtype, name="x")
    model = keras.Model(x, InCells(reduce, cells, dtype=dtype)(x))
    exported = Exported(model, tmp_path / "model.onnx")
    assert "ScatterND" not in exported.ops
    for batch in (1, 3, 0):
        values = np.random.default_rng(batch).integers(-8, 8, (batch, 4, 5)).astype(dtype)
        (answer,) = exported.run(values)
        expected = np.full((2, 3, batch, 5), 10, dtype)
        step = {"add": np.add, "sub": np.subtract, "max": np.maximum, "min": np.minimum}
        for number, (row, column) in enumerate(CELLS):
            cell = expected[row, column]
            cell[:] = step[reduce.__name__[-3:]](cell, values[:, number])
        np.testing.assert_array_equal(answer, expected)


def test_values_scattered_to_one_cell_of_a_table_are_added(tmp_path):
    class Sums(keras.layers.Layer):
        def call(self, x):
            return tf.scatter_nd(CELLS, tf.transpose(x), tf.stack([2, 3, tf.shape(x)[0]]))

        def compute_output_shape(self, input_shape):
            return (2, 3, None)

    x = keras.Input((4,), name="x")
    exported = Exported(keras.Model(x, Sums()(x)), tmp_path / "model.onnx")
    (answer,) = exported.run(np.array([[1, 2, 4, 8]], "float32"))
    np.testing.assert_array_equal(answer[..., 0], [[0, 5, 0], [2, 0, 8]])
