"""Files of every opset, and graphs that are brought from one to another."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from keras_blocks.export.passes.opset.newest import (
    DEFAULT_OPSET,
    LOWEST_OPSET,
    NEWEST_OPSET,
    lift,
)
from onnx import TensorProto, helper
from onnx_runs import Exported, images, random_weights, sequences

import keras_blocks as kb
from keras_blocks.errors import ExportError

layers = keras.layers
# Where files begin to hold other ops, and the ends.
OPSETS = [LOWEST_OPSET, 17, 18, 20, 23, DEFAULT_OPSET, NEWEST_OPSET]


def encoder():
    x = keras.Input((None, 6), name="x")
    h = layers.LayerNormalization()(layers.Bidirectional(layers.GRU(3, return_sequences=True))(x))
    h = h + layers.MultiHeadAttention(2, 3)(h, h)
    h = layers.Dense(8, activation="gelu")(layers.RMSNormalization()(h))
    return keras.Model(x, layers.Dense(3, activation="softmax")(h)), sequences(2, 5)


def image_model():
    x = keras.Input((None, None, 4), name="x")
    h = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x))
    h = layers.AveragePooling2D(2)(layers.Activation("swish")(h))
    h = layers.GroupNormalization(2)(layers.MaxPooling2D(2, padding="same")(h))
    return keras.Model(x, layers.GlobalAveragePooling2D()(h)), images(2, 9, 8, 4)


def spectrum():
    x = keras.Input((64,), name="x")
    magnitudes = layers.Lambda(lambda z: tf.abs(tf.signal.rfft(z)))
    return keras.Model(x, magnitudes(x)), sequences(1, 2, 64)[0]


def masked():
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = layers.Embedding(9, 6, mask_zero=True)(ids)
    return keras.Model(ids, kb.LSTM(4)(layers.SimpleRNN(5, return_sequences=True)(h)))


MODELS = {"encoder": encoder, "images": image_model}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_file_of_any_opset_gives_the_same(make, opset, tmp_path):
    model, inputs = make()
    exported = Exported(random_weights(model), tmp_path / "m.onnx", opset_version=opset)
    assert {entry.domain: entry.version for entry in exported.proto.opset_import} == {"": opset}
    exported.check(inputs)


@pytest.mark.parametrize("opset", [17, 18, DEFAULT_OPSET])
def test_a_fourier_transform_is_called_as_its_opset_wants(opset, tmp_path):
    model, inputs = spectrum()
    Exported(model, tmp_path / "m.onnx", opset_version=opset).check(inputs)


@pytest.mark.parametrize("opset", [LOWEST_OPSET, NEWEST_OPSET])
def test_loops_and_branches_are_lifted_with_what_is_in_them(opset, tmp_path):
    exported = Exported(random_weights(masked()), tmp_path / "m.onnx", opset_version=opset)
    assert {"If", "Loop"} <= set(exported.ops)
    exported.check(np.array([[1, 0, 3, 4, 0], [0, 2, 5, 9 % 8, 1]], "int32"))


def test_the_default_goes_with_its_ir_version(tmp_path):
    model, _ = encoder()
    proto = Exported(model, tmp_path / "m.onnx").proto
    assert proto.opset_import[0].version == DEFAULT_OPSET
    # The version of the format of the onnx release that brought the opset.
    released = {row[2]: row[1] for row in helper.VERSION_TABLE}
    assert proto.ir_version == released[DEFAULT_OPSET]


def graph_of(op_type, shapes, opset, rank=1, **attributes):
    """A model of one node over float tensors of these names and shapes."""
    inputs = list(shapes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    node = helper.make_node(op_type, inputs, ["y"], "n", **attributes)
    graph = helper.make_graph([node], "g", values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model, feeds):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]


@pytest.mark.parametrize(("axis", "given"), [(1, {}), (2, {"axis": 2})])
def test_the_axis_of_a_fourier_transform_becomes_an_input(axis, given):
    model = graph_of("DFT", {"x": [2, 3, 4, 1]}, 17, rank=4, **given)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype("float32")
    before = run(model, {"x": x})
    wanted = np.fft.fft(x[..., 0], axis=axis)
    np.testing.assert_allclose(before[..., 0] + 1j * before[..., 1], wanted, atol=1e-4)
    lift(model, 22)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, {"x": x}), before, atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_the_modes_of_a_grid_sample_get_their_new_names(mode):
    model = graph_of("GridSample", {"x": [1, 2, 5, 5], "grid": [1, 3, 3, 2]}, 16, rank=4, mode=mode)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 2, 5, 5)).astype("float32")
    grid = generator.uniform(-1, 1, (1, 3, 3, 2)).astype("float32")
    before = run(model, {"x": x, "grid": grid})
    lift(model, 22)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, {"x": x, "grid": grid}), before, atol=1e-6)


def test_an_operator_that_is_called_in_another_way_is_refused():
    # Since opset 13 the axes of a Squeeze are an input.
    model = graph_of("Squeeze", {"x": [2, 1]}, 11, axes=[1])
    with pytest.raises(ExportError, match=r"node 'n' is a Squeeze of opset 11, which opset 18"):
        lift(model, 18)


def test_the_runtime_that_the_tests_run_with_loads_the_newest_opset():
    model = graph_of("Relu", {"x": [2]}, 18)
    lift(model, NEWEST_OPSET)
    assert run(model, {"x": np.array([-1, 2], "float32")}).tolist() == [0, 2]
