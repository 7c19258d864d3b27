"""Integers come out of a file as they come out of the model, at the edges of their types too."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx
from keras_blocks.export.lowerings.registry import _converters
from keras_blocks.runtime.runner import OnnxRunner

S = tf.math
IDS = [0, 1, 1, 3, 0]
DTYPES = ("int8", "uint8", "int32", "uint32", "int64", "uint64")
SIGNED = ("int8", "int32", "int64")
FLOATS = {TensorProto.FLOAT16: 11, TensorProto.FLOAT: 24, TensorProto.DOUBLE: 53}
BITS = {
    TensorProto.INT32: 32,
    TensorProto.UINT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT64: 64,
}


class Functions(keras.layers.Layer):
    """Several functions of one input."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def call(self, x):
        return {name: function(x) for name, function in self.functions.items()}

    def compute_output_spec(self, x):
        spec = tf.TensorSpec((None, *x.shape[1:]), x.dtype)
        traced = tf.function(self.call, autograph=False).get_concrete_function(spec)
        return {
            name: keras.KerasTensor(y.shape, y.dtype.name)
            for name, y in traced.structured_outputs.items()
        }


def of(number):
    """The number in the type of another tensor."""
    return lambda x: tf.cast(number, x.dtype)


THREE = of(3)
EVERYWHERE = {
    "sort": tf.sort,
    "sort_down": lambda x: tf.sort(x, direction="DESCENDING"),
    "argsort": tf.argsort,
    "sort_rows": lambda x: keras.ops.sort(x, axis=0),
    "top_k": lambda x: S.top_k(x, 2).values,
    "top_places": lambda x: S.top_k(x, 3).indices,
    "max": lambda x: tf.reduce_max(x, 1),
    "min": lambda x: tf.reduce_min(x, 0),
    "sum": lambda x: tf.reduce_sum(x, 1),
    "sum_all": tf.reduce_sum,
    "prod": lambda x: tf.reduce_prod(x, 1, keepdims=True),
    "mean": lambda x: tf.reduce_mean(x, 1),
    "argmax": lambda x: tf.argmax(x, 1),
    "argmin": lambda x: tf.argmin(x, 1),
    "maximum": lambda x: tf.maximum(x, x[:, ::-1]),
    "clip": lambda x: tf.clip_by_value(x, THREE(x), x.dtype.max - THREE(x)),
    "floordiv": lambda x: x // THREE(x),
    "floormod": lambda x: x % THREE(x),
    "floordiv_by_it": lambda x: x // tf.maximum(x[:, ::-1], of(1)(x)),
    "mul": lambda x: x * x[:, ::-1],
    "cumsum": lambda x: tf.cumsum(x, 1, exclusive=True, reverse=True),
    "relu": tf.nn.relu,
    "select": lambda x: tf.where(x > x[:, ::-1], x, x[:, ::-1]),
    "less": lambda x: x < x[:, ::-1],
    "unsorted_sum": lambda x: S.unsorted_segment_sum(x[0], IDS, 5),
    "unsorted_max": lambda x: S.unsorted_segment_max(x, [0, 0, 1, 0], 3),
    "unsorted_min": lambda x: S.unsorted_segment_min(x[0], [0, -1, 1, 3, 0], 5),
    "unsorted_prod": lambda x: S.unsorted_segment_prod(x[:1], [IDS], 5),
    "segment_sum": lambda x: S.segment_sum(x, [0, 0, 2, 2]),
    "segment_max": lambda x: S.segment_max(x[0], [0, 1, 1, 3, 3]),
    "segment_mean": lambda x: S.segment_mean(x[0], [0, 1, 1, 3, 3]),
    "scatter_add": lambda x: tf.tensor_scatter_nd_add(x[0, :2], [[0], [1], [1]], x[0, :3]),
    "scatter_sub": lambda x: tf.tensor_scatter_nd_sub(x[0, :2], [[0], [1], [1]], x[0, :3]),
    "pad": lambda x: tf.pad(x, [[0, 0], [1, 2]], constant_values=THREE(x)),
    "searchsorted": lambda x: tf.searchsorted(tf.sort(x), x) if x.dtype in SIGNED[1:] else x,
    "picked": lambda x: keras.ops.take_along_axis(x, keras.ops.argsort(x), 1),
}
WHERE_SIGNED = {
    "abs": tf.abs,
    "neg": lambda x: -x,
    "cube": lambda x: x**3,
    "fifth": lambda x: tf.pow(x, of(5)(x)),
    "power": lambda x: tf.pow(x, tf.bitwise.bitwise_and(x, of(7)(x))),
}


def edges(dtype):
    """Both ends of a type, what float32 and float64 do not have, and any others."""
    info = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(info.min, info.max, (4, 5), dtype, endpoint=True)
    ends = (
        info.max,
        info.min,
        info.max - 1,
        info.min + 1,
        2**24 + 1,
        2**24,
        2**53 + 1,
        2**53,
        0,
        1,
    )
    some = [value for value in ends if info.min <= value <= info.max]
    x.reshape(-1)[: len(some)] = some
    return x


def model_of(functions, dtype):
    x = keras.Input((5,), dtype=dtype, name="x")
    return keras.Model(x, Functions(functions)(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_at_the_edges_of_their_type_are_those_of_the_model(dtype, tmp_path):
    functions = {**EVERYWHERE, **(WHERE_SIGNED if dtype in SIGNED else {})}
    path = tmp_path / "model.onnx"
    export_onnx(model_of(functions, dtype), path, verify=False, verbose=False)
    x = edges(dtype)
    got = OnnxRunner(path).run({"x": x})
    wrong = []
    for name, function in functions.items():
        want = function(tf.constant(x)).numpy()
        if not (np.array_equal(got[name], want) and got[name].dtype == want.dtype):
            wrong.append((name, got[name].tolist(), want.tolist()))
    assert not wrong
    assert list(rounded(onnx.load(path))) == []


def rounded(model):
    """Casts of integers to floats that have not all of them, from which integers come again."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {weight.name: weight.data_type for weight in inferred.initializer}
    for node in inferred.node:
        bits = BITS.get(types.get(node.input[0]) if node.input else None, 0)
        if node.op_type == "Cast" and bits > FLOATS.get(types.get(node.output[0]), bits):
            behind = set(node.output)
            for reader in inferred.node:  # each stands behind those that it reads
                behind |= set(reader.output) if behind.intersection(reader.input) else set()
            if any(types.get(name) in (*BITS, TensorProto.BOOL) for name in behind):
                yield node.name


@pytest.mark.parametrize("pool", [tf.nn.max_pool1d])
def test_pooled_integers_are_whole_or_refused(pool, tmp_path):
    def pooled(x):
        return pool(x[:, :, tf.newaxis], 2, 1, "VALID")

    path = tmp_path / "model.onnx"
    export_onnx(model_of({"y": pooled}, "int32"), path, verify=False, verbose=False)
    x = edges("int32")
    assert np.array_equal(
        OnnxRunner(path).run({"x": x})["y"][..., 0], np.maximum(x[:, 1:], x[:, :-1])
    )
    with pytest.raises(ExportError, match="pools integers of 64 bits"):
        export_onnx(model_of({"y": pooled}, "int64"), path, verify=False, verbose=False)


def test_a_converter_that_casts_integers_to_floats_is_refused(monkeypatch, tmp_path):
    monkeypatch.delitem(_converters, "TopKV2")  # tf2onnx's own takes floats for it
    with pytest.raises(ExportError, match="would pass integers through floats"):
        export_onnx(model_of({"y": tf.sort}, "int32"), tmp_path / "m.onnx", verbose=False)


def test_sums_of_truths_and_sizes_stay_one_node(tmp_path):
    def count(x):
        return tf.reduce_sum(tf.cast(x > THREE(x), tf.int64), 1) + tf.reduce_prod(
            tf.shape(x, tf.int64)
        )

    result = export_onnx(model_of({"y": count}, "int32"), tmp_path / "m.onnx", verbose=False)
    assert result.op_counts["ReduceSum"] == 1
    assert "ScatterElements" not in result.op_counts
    assert "Mod" not in result.op_counts
