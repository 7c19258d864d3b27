"""Inputs of integers that are places, segments or keys are proven, and the contract knows them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_blocks.export import export_onnx
from keras_blocks.runtime.runner import OnnxRunner


class Function(layers.Layer):
    """A function of several inputs that gives a tensor of this shape."""

    def __init__(self, function, shape):
        super().__init__()
        self.function, self.shape = function, shape

    def call(self, *inputs):
        return self.function(*inputs)

    def compute_output_spec(self, *inputs):
        return keras.KerasTensor(self.shape, "float32")


def model_of(function, shape, *inputs):
    return keras.Model(list(inputs), Function(function, shape)(*inputs))


X, FREE = keras.Input((5,), name="x"), keras.Input((None,), name="x")
PLACES = keras.Input((3,), dtype="int32", name="i")
ONE = keras.Input((1,), dtype="int64", name="i")
TABLE = tf.range(100.0)


@pytest.mark.parametrize(
    ("model", "least", "most"),
    [
        (lambda: model_of(lambda x, i: ops.take_along_axis(x, i, 1), (None, 3), X, PLACES), -5, 4),
        (lambda: model_of(lambda i: tf.gather(TABLE, i), (None, 3), PLACES), 0, 99),
        (
            lambda: model_of(
                lambda x, i: ops.segment_sum(x, i[:, 0], num_segments=4), (4, 5), X, ONE
            ),
            None,
            3,
        ),
        (
            lambda: keras.Sequential(
                [ONE, layers.IntegerLookup(vocabulary=[4, 5, 6], num_oov_indices=0)]
            ),
            4,
            6,
        ),
        # These have no one range: it hangs on the size, or there are gaps in the table.
        (
            lambda: model_of(lambda x, i: ops.take_along_axis(x, i, 1), (None, 3), FREE, PLACES),
            None,
            None,
        ),
        (
            lambda: keras.Sequential(
                [ONE, layers.IntegerLookup(vocabulary=[10, 200], num_oov_indices=0)]
            ),
            None,
            None,
        ),
    ],
    ids=["take", "gather", "segments", "table", "free", "gaps"],
)
def test_the_range_that_a_model_takes_is_found_and_in_the_contract(model, least, most, tmp_path):
    path = tmp_path / "model.onnx"
    result = export_onnx(model(), path, verbose=False)
    integers = result.contract.inputs[-1]
    assert (integers.minimum, integers.maximum) == (least, most)
    assert result.parity.ok
    assert not result.parity.skipped
    assert OnnxRunner(path).contract() == result.contract


def test_several_tables_are_each_looked_up_in_their_own_keys(tmp_path):
    a, b = (keras.Input((1,), dtype="int64", name=name) for name in "ab")
    tables = [layers.IntegerLookup(vocabulary=keys, num_oov_indices=0) for keys in ([1, 2], [7, 8])]
    model = keras.Model([a, b], [tables[0](a), tables[1](b)])
    result = export_onnx(model, tmp_path / "model.onnx", verbose=False)
    assert [(s.minimum, s.maximum) for s in result.contract.inputs] == [(1, 2), (7, 8)]


def test_a_model_that_takes_any_integer_has_no_range(tmp_path):
    x = keras.Input((3,), dtype="int32", name="x")
    result = export_onnx(keras.Model(x, x * 2), tmp_path / "model.onnx", verbose=False)
    assert (result.contract.inputs[0].minimum, result.contract.inputs[0].maximum) == (None, None)
    assert np.array_equal(
        OnnxRunner(tmp_path / "model.onnx").run({"x": np.array([[2**30, -5, 3]], "int32")})[
            "multiply"
        ],
        [[2**31 - 2**32, -10, 6]],
    )
