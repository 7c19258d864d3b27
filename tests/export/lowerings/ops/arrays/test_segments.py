"""Rows are reduced by segment, whether there are any or none, floats and integers alike."""

import keras
import numpy as np
import tensorflow as tf
from onnx_runs import Exported, function_model, images

from keras_blocks.export import export_onnx


def test_every_reduction_of_sorted_rows_and_of_rows_in_any_order(tmp_path):
    ids, mixed = [0, 0, 2, 2], [3, -1, 0, 3]

    def every(x):
        rows, math = x[0], tf.math
        sorted_ = (math.segment_sum, math.segment_prod, math.segment_max, math.segment_min)
        others = ("sum", "prod", "max", "min", "mean")
        return [
            *(reduce(rows, ids) for reduce in (*sorted_, math.segment_mean)),
            *(getattr(math, f"unsorted_segment_{kind}")(rows, mixed, 5) for kind in others),
            tf.sparse.segment_mean(rows, [2, 0, 1], [0, 0, 1]),
        ]

    Exported(function_model(every, (4, 3)), tmp_path / "m.onnx").check(images(1, 4, 3))


def test_integers_are_not_rounded(tmp_path):
    model = function_model(
        lambda x: tf.math.unsorted_segment_sum(x[0], [0, 1, 1], 2), (3,), dtypes=("int64",)
    )
    x = np.array([[2**53 + 1, 2**53, 5]])
    (got,) = Exported(model, tmp_path / "m.onnx").run(x)
    np.testing.assert_array_equal(got, [2**53 + 1, 2**53 + 5])


def test_ragged_rows_that_are_all_empty_have_sums(tmp_path):
    x = keras.Input((None, 4), ragged=True, name="x")

    class Sums(keras.layers.Layer):
        def call(self, rows):
            return tf.reduce_sum(rows, axis=1)

        def compute_output_spec(self, rows):
            return keras.KerasTensor((None, 4), "float32")

    model = keras.Model(x, Sums()(x))
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast", verbose=False).parity.ok
