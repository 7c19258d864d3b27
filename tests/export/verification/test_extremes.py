"""The proof goes to extremes: the ends of the integers, empty and full selections, NaN."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from onnx import TensorProto, helper

from keras_blocks.errors import ParityError
from keras_blocks.export import check_parity, export_onnx
from keras_blocks.export.lowerings.registry import _converters
from keras_blocks.export.signature.signature import signature_of
from keras_blocks.export.verification.stages.integer_edges import _edges, _flow


class Function(layers.Layer):
    """A function of one input that gives a tensor of this shape and element type."""

    def __init__(self, function, shape, dtype):
        super().__init__()
        self.function, self.spec = function, keras.KerasTensor(shape, dtype)

    def call(self, x):
        return self.function(x)

    def compute_output_spec(self, x):
        return self.spec


def model_of(function, shape=(), dtype="float32", input_dtype="float32"):
    x = keras.Input((4,), dtype=input_dtype, name="x")
    return keras.Model(x, Function(function, shape, dtype)(x))


def written(tmp_path, model, nodes, initializers=()):
    """A file with the inputs and outputs of a model, and these nodes."""
    path = tmp_path / "other.onnx"
    contract = signature_of(model).contract

    def values(tensors):
        return [
            helper.make_tensor_value_info(
                t.name, helper.np_dtype_to_tensor_dtype(np.dtype(t.dtype)), t.shape
            )
            for t in tensors
        ]

    ends = values(contract.flat_inputs()), values(contract.flat_outputs())
    graph = helper.make_graph(nodes, "other", *ends, list(initializers))
    opsets = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )
    return path


def test_integers_that_pass_through_floats_are_found(tmp_path):
    model = model_of(lambda x: x + 0, (None, 4), "int64", "int64")
    name = signature_of(model).contract.outputs[0].name
    for dtype in (TensorProto.FLOAT, TensorProto.DOUBLE):
        nodes = [
            helper.make_node("Cast", ["x"], ["f"], to=dtype),
            helper.make_node("Cast", ["f"], [name], to=TensorProto.INT64),
        ]
        report = check_parity(model, written(tmp_path, model, nodes), verify="fast", verbose=False)
        assert "integers to the ends of their type" in report.failures()[0].sample


@pytest.mark.parametrize(
    ("function", "goes"),
    [
        (lambda x: tf.sort(x), True),
        (lambda x: tf.where(x > 3, x, -x), True),
        (lambda x: x // 3, True),
        (lambda x: x // tf.maximum(x, 1), False),  # the least integer by -1 ends the process
        (lambda x: tf.cast(x, tf.float32) * 2, False),
        (lambda x: tf.range(x[0, 0]), False),
        (lambda x: tf.zeros(x[0, :2], tf.int32), False),
        (lambda x: tf.while_loop(lambda i: i < x[0, 0], lambda i: i + 1, [0]), False),
        (lambda x: tf.gather(tf.range(9), x), False),
    ],
    ids=["sort", "where", "divided", "divisor", "float", "range", "size", "loop", "place"],
)
def test_only_integers_that_nothing_limits_go_to_the_ends(function, goes):
    model = model_of(function, (None,), "int32", "int32")
    signature = signature_of(model)
    flow = _flow(signature, signature.contract.inputs[0])
    assert (bool(flow.outputs) and not flow.limited) is goes


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_the_ends_of_an_integer_type_are_drawn(dtype):
    values = _edges(np.dtype(dtype), (4, 4), np.random.default_rng(0))
    assert {np.iinfo(dtype).min, np.iinfo(dtype).max} <= set(values.ravel().tolist())


def test_every_side_of_a_branch_and_every_extreme_of_a_size_is_tried(tmp_path):
    def function(x):
        mean = tf.reduce_mean(tf.boolean_mask(x, x > 0))
        return tf.cond(tf.reduce_sum(x) > 100.0, lambda: 2 * mean, lambda: mean)

    result = export_onnx(model_of(function), tmp_path / "model.onnx", verbose=False)
    picked, branch = sorted(result.parity.sides, reverse=True)
    assert "(NonZero): nothing, one, some, all" in " ".join((picked, branch))
    assert "(If): true, false" in " ".join((picked, branch))
    assert "decided by the data" in str(result.parity)


def test_a_mean_over_nothing_is_not_a_number_as_in_tensorflow(tmp_path, monkeypatch):
    model = model_of(lambda x: tf.reduce_mean(tf.boolean_mask(x, x > 0)))
    assert export_onnx(model, tmp_path / "model.onnx", verbose=False).parity.ok
    monkeypatch.delitem(_converters, "Mean")  # tf2onnx's own gives 0
    with pytest.raises(ParityError, match="everywhere"):
        export_onnx(model, tmp_path / "model.onnx", verbose=False)


def test_a_branch_that_is_wrong_on_its_rare_side_is_found(tmp_path):
    model = model_of(lambda x: tf.cond(tf.reduce_min(x) > 5.0, lambda: x * 2, lambda: x), (None, 4))
    name = signature_of(model).contract.outputs[0].name
    # The file has the usual side alone, on both.
    least = helper.make_node("ReduceMin", ["x"], ["least"], keepdims=0)
    limit = helper.make_tensor("limit", TensorProto.FLOAT, [], [5.0])
    sides = [
        helper.make_graph(
            [helper.make_node("Identity", ["x"], [side])],
            side,
            [],
            [helper.make_tensor_value_info(side, TensorProto.FLOAT, ["batch", 4])],
        )
        for side in ("then", "else")
    ]
    nodes = [
        least,
        helper.make_node("Greater", ["least", "limit"], ["large"]),
        helper.make_node("If", ["large"], [name], then_branch=sides[0], else_branch=sides[1]),
    ]
    report = check_parity(model, written(tmp_path, model, nodes, [limit]), verbose=False)
    assert "10 everywhere in all inputs" in report.failures()[0].sample


def test_not_a_number_where_the_file_gives_one_is_told(tmp_path):
    result = export_onnx(
        model_of(lambda x: tf.reduce_max(x, 1), (None,)), tmp_path / "m.onnx", verbose=False
    )
    (said,) = result.parity.not_numbers
    assert said.startswith("NaN inputs differ: output")
    assert said in " ".join(str(result.parity).split())
    assert result.parity.summary()["not_numbers"] == [said]
    plain = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, activation="relu")])
    assert export_onnx(plain, tmp_path / "m.onnx", verbose=False).parity.not_numbers == ()
