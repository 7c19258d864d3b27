"""Segments that a user's own code reduces, and the plain spelling of attention on ragged rows."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

import keras_blocks as kb
from keras_blocks.export import export_onnx

KINDS = ("sum", "max", "min", "prod")


def rows():
    return keras.Input((None, 3), ragged=True, name="x")


def own(function, shape=(3,)):
    return keras.layers.Lambda(function, output_shape=shape)


def test_every_reduction_of_ragged_rows_is_proven(tmp_path):
    x = rows()
    reductions = [getattr(tf, f"reduce_{kind}") for kind in (*KINDS, "mean")]
    outputs = [own(lambda x, f=f: f(x, axis=1))(x) for f in reductions]
    result = export_onnx(keras.Model(x, outputs), tmp_path / "m.onnx")
    assert result.op_counts["ScatterElements"] == 6  # a mean is two sums
    assert "Loop" not in result.op_counts


def test_segments_in_order_are_proven_where_some_of_them_are_empty(tmp_path):
    x = keras.Input((3,), name="x")
    segments = keras.Input((), dtype="int32", name="segments")
    ops = [getattr(tf.math, f"segment_{kind}") for kind in (*KINDS, "mean")]
    outputs = [own(lambda x, f=f: f(x[0], tf.cast(x[1], "int32")))([x, segments]) for f in ops]
    model = keras.Model({"x": x, "segments": segments}, outputs)
    exported = Exported(model, tmp_path / "m.onnx")
    values = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    exported.check({"x": values, "segments": np.array([1, 1, 4, 6], "int32")})


def test_segments_in_any_order_are_proven_and_negative_ones_dropped(tmp_path):
    x = keras.Input((3,), name="x")
    segments = keras.Input((), dtype="int32", name="segments")
    ops = [getattr(tf.math, f"unsorted_segment_{kind}") for kind in KINDS]
    outputs = [own(lambda x, f=f: f(x[0], x[1], 5))([x, segments]) for f in ops]
    model = keras.Model({"x": x, "segments": segments}, outputs)
    exported = Exported(model, tmp_path / "m.onnx")
    values = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    exported.check({"x": values, "segments": np.array([2, -1, 0, 2], "int32")})


@keras.saving.register_keras_serializable("keras_blocks_tests")
class PlainAttention(keras.layers.Layer):
    """A user's own layer, spelt as the formula is."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.score, self.softmax = kb.Vanilla(1, activation=None), kb.Softmax(axis=1)

    def call(self, x):
        return tf.reduce_sum(self.softmax(self.score(x)) * x, axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]


@pytest.mark.parametrize("style", ["operators", "layer"])
def test_the_plain_spelling_of_attention_on_ragged_rows_is_proven(style, tmp_path):
    x = rows()
    if style == "layer":
        y = PlainAttention()(x)
    else:
        weights = kb.Softmax(axis=1)(kb.Vanilla(1, activation=None)(x))
        y = keras.ops.sum(weights * x, axis=1)
    assert export_onnx(keras.Model(x, y), tmp_path / "m.onnx").parity.ok
