"""Numbers are counted in vectors and in the rows of matrices, with weights and without."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

SIZE = 5
NUMBERS = np.array([[0, 3, 3, 4], [1, 1, 1, 9]], "int32")  # 9 is out of range and does not count
WEIGHTS = np.array([[1.0, 0.5, 0.25, -2.0], [3.0, 0.0, 1.0, 7.0]], "float32")


def counted(weighted=False):
    """A plain loop."""
    counts = np.zeros((len(NUMBERS), SIZE), "float32")
    for row, numbers in enumerate(NUMBERS):
        for place, number in enumerate(numbers):
            if number < SIZE:
                counts[row, number] += WEIGHTS[row, place] if weighted else 1.0
    return counts


def model_of(weighted=False, binary=False):
    numbers, weights = keras.Input((None,), dtype="int32"), keras.Input((None,))

    def count(parts):
        given = parts[1] if weighted else tf.zeros([0])
        return tf.raw_ops.DenseBincount(
            input=parts[0], size=SIZE, weights=given, binary_output=binary
        )

    outputs = keras.layers.Lambda(count, output_shape=(SIZE,))([numbers, weights])
    return keras.Model([numbers, weights], outputs)


@pytest.mark.parametrize("weighted", [False, True])
def test_every_number_counts_in_its_row(weighted, tmp_path):
    exported = Exported(model_of(weighted), tmp_path / "m.onnx")
    (got,) = exported.run([NUMBERS, WEIGHTS])
    np.testing.assert_array_equal(got, counted(weighted))


@pytest.mark.parametrize("opset", [15, 18])
def test_presence_is_one_however_often(opset, tmp_path):
    exported = Exported(model_of(binary=True), tmp_path / "m.onnx", opset_version=opset)
    (got,) = exported.run([NUMBERS, WEIGHTS])
    np.testing.assert_array_equal(got, counted() > 0)


def test_a_vector_is_counted_as_one_row(tmp_path):
    x = keras.Input(batch_shape=(None,), dtype="int32", name="x")
    count = keras.layers.Lambda(lambda z: tf.math.bincount(z, minlength=SIZE, maxlength=SIZE))
    exported = Exported(keras.Model(x, count(x)), tmp_path / "m.onnx")
    (got,) = exported.run(NUMBERS.reshape(-1))
    np.testing.assert_array_equal(got, counted().sum(axis=0))


def test_counts_are_weighted_by_a_second_input_of_the_layer(tmp_path):
    x, weights = keras.Input((4,), dtype="int32", name="x"), keras.Input((4,), name="weights")
    layer = keras.layers.CategoryEncoding(10, output_mode="count")
    model = keras.Model([x, weights], layer(x, count_weights=weights))
    Exported(model, tmp_path / "m.onnx").check([tf.constant(NUMBERS), tf.constant(WEIGHTS)])
