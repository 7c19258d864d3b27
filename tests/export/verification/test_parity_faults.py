"""Deliberate faults in exported files: the proof finds each one, and names the right layer."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.errors import ParityError
from keras_blocks.export import check_parity
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.export.verification.keras_side import OnnxRunner
from keras_blocks.export.verification.padding import proven_signature

layers = keras.layers
NUDGE = 1e-2  # far below what a user would see by eye, far above rounding


def dense_model() -> keras.Model:
    x = keras.Input((4,), name="x")
    y = layers.Dense(6, activation="tanh", name="first")(x)
    y = layers.Dense(6, activation="tanh", name="second")(y)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="last")(y), name="dense")


def two_headed_model() -> keras.Model:
    x = keras.Input((4,), name="x")
    heads = {"left": layers.Dense(3, name="l")(x), "right": layers.Dense(3, name="r")(x)}
    return keras.Model(x, heads, name="two_headed")


def recurrent_model() -> keras.Model:
    x = keras.Input((None, 4), name="x")
    y = layers.LSTM(5, return_sequences=True, name="reader")(x)
    return keras.Model(x, layers.Dense(3, name="head")(y), name="recurrent")


def masked_model(mask_zero: bool = True) -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="ids")
    y = layers.Embedding(12, 6, mask_zero=mask_zero, name="words")(ids)
    return keras.Model(ids, layers.LSTM(5, name="reader")(y), name="masked")


def image_model() -> keras.Model:
    x = keras.Input((8, 8, 2), name="image")
    y = layers.Conv2D(3, 3, padding="same", name="wide")(x)
    y = layers.MaxPooling2D(2, name="pool")(y)
    return keras.Model(x, layers.Conv2D(2, 2, name="narrow")(y), name="image")


def class_model() -> keras.Model:
    x = keras.Input((4,), name="x")
    scores = layers.Dense(5, name="scores")(x)
    winner = layers.Lambda(
        lambda s: keras.ops.cast(s > 0, "int32"), output_shape=(5,), name="winner"
    )(scores)
    return keras.Model(x, {"scores": scores, "winner": winner}, name="classes")


def exported(model: keras.Model) -> onnx.ModelProto:
    return to_onnx(model, proven_signature(model))


def verify_file(model: keras.Model, file: onnx.ModelProto, folder: Path, **options: object):
    return check_parity(model, save(file, folder), **options)


def save(file: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(file.SerializeToString())
    return path


def weights(file: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Those of layers: what a lowering adds, such as states of zeros, is all the same."""
    floats = [t for t in file.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    return [t for t in floats if len(np.unique(numpy_helper.to_array(t))) > 1]


def nodes(file: onnx.ModelProto, op_type: str) -> list[onnx.NodeProto]:
    return [node for node in file.graph.node if node.op_type == op_type]


def change(tensor: onnx.TensorProto, function: Callable[[np.ndarray], np.ndarray]) -> None:
    array = function(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))


def nudge(tensor: onnx.TensorProto, index: int = 0) -> None:
    def nudged(array: np.ndarray) -> np.ndarray:
        array.reshape(-1)[index] += NUDGE
        return array

    change(tensor, nudged)


def assert_caught(report, layer: str | None, *words: str) -> None:
    assert not report.ok
    with pytest.raises(ParityError) as caught:
        report.raise_if_wrong()
    assert caught.value.report is report
    for word in words:
        assert re.search(word, str(caught.value)), f"{word!r} is not in:\n{caught.value}"
    if layer is not None:
        assert report.first_difference.layer == layer, report.first_difference


@pytest.mark.parametrize("make", [dense_model, recurrent_model, masked_model, image_model])
def test_a_nudge_of_any_weight_is_caught_and_blamed_on_its_layer(make, tmp_path):
    model = make()
    randomize(model)
    file = exported(model)
    (sample, *_) = reversed(list(draw_samples(proven_signature(model).contract)))
    nudged_layers = set()
    for weight in weights(file):
        before = onnx.TensorProto.FromString(weight.SerializeToString())
        owner = owner_of(model, weight)
        nudge(weight, index=int(np.prod(weight.dims)) // 2)
        report = verify_file(model, file, tmp_path, inputs=sample.feed)
        assert_caught(report, owner, "differs in 1 of", f"'{owner}'")
        nudged_layers.add(owner)
        weight.CopyFrom(before)
    assert nudged_layers == {layer.name for layer in model.layers if layer.weights}


def randomize(model: keras.Model) -> None:
    """Biases begin as zeros, which would make them alike."""
    generator = np.random.default_rng(3)
    for weight in model.weights:
        weight.assign(generator.normal(scale=0.5, size=weight.shape))


def owner_of(model: keras.Model, weight: onnx.TensorProto) -> str:
    """The layer whose numbers these are, in whatever order; an LSTM's bias has zeros beside."""
    values = set(numpy_helper.to_array(weight).ravel().tolist()) - {0.0}
    (owner,) = (
        layer.name
        for layer in model.layers
        if any(values <= set(w.numpy().ravel().tolist()) for w in layer.weights)
    )
    return owner


def test_a_nudge_of_any_row_of_an_embedding_is_caught(tmp_path):
    ids = keras.Input((None,), dtype="int32", name="ids")
    pooled = layers.GlobalAveragePooling1D()(layers.Embedding(300, 6)(ids))
    model = keras.Model(ids, layers.Dense(2)(pooled))
    signature = proven_signature(model)
    file = exported(model)
    table = next(w for w in weights(file) if list(w.dims) == [300, 6])
    right = numpy_helper.to_array(table)
    proof = VerificationRun(model, signature)
    for row in range(0, 300, 13):
        table.CopyFrom(numpy_helper.from_array(with_nudged_row(right, row), table.name))
        proof.failed = None
        proof.run(OnnxRunner(save(file, tmp_path)), draw_samples(signature.contract))
        assert proof.failed is not None, row


def with_nudged_row(table: np.ndarray, row: int) -> np.ndarray:
    nudged = table.copy()
    nudged[row] += NUDGE
    return nudged


def test_a_transposed_kernel_is_caught(tmp_path):
    model = dense_model()
    file = exported(model)
    square = next(w for w in weights(file) if list(w.dims) == [6, 6])
    change(square, np.transpose)
    assert_caught(
        verify_file(model, file, tmp_path), "second", "Output 'last'", "differs in 30 of 36"
    )


def test_another_activation_is_caught(tmp_path):
    model = dense_model()
    file = exported(model)
    nodes(file, "Tanh")[1].op_type = "Sigmoid"
    assert_caught(verify_file(model, file, tmp_path), "second", "is 'Sigmoid', not 'Tanh'")


def test_a_softmax_over_the_batch_is_caught(tmp_path):
    model = dense_model()
    file = exported(model)
    (softmax,) = nodes(file, "Softmax")
    del softmax.attribute[:]
    softmax.attribute.append(helper.make_attribute("axis", 0))
    assert_caught(verify_file(model, file, tmp_path), "last", "axis")


def test_a_frozen_input_dim_is_caught(tmp_path):
    model = recurrent_model()
    file = exported(model)
    file.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    assert_caught(
        verify_file(model, file, tmp_path), None, "Axis 1 of its input 'x' is frozen at 7"
    )


def test_a_size_frozen_inside_the_graph_is_caught(tmp_path):
    model = recurrent_model()
    file = exported(model)
    for node in file.graph.node:
        node.output[:] = ["before" if name == "head" else name for name in node.output]
    file.graph.initializer.append(numpy_helper.from_array(np.array([-1, 7, 3]), "frozen"))
    file.graph.node.append(helper.make_node("Reshape", ["before", "frozen"], ["head"]))
    report = verify_file(model, file, tmp_path)
    assert_caught(report, "head", "onnxruntime fails where Keras does not", r"\{-1,7,3\}")
    assert {check.ok for check in report.checks if check.input_shapes["x"][1] == 7} == {True}
    assert {check.ok for check in report.checks if check.input_shapes["x"][1] != 7} == {False}


def test_an_ignored_mask_is_caught(tmp_path):
    model, unmasked = masked_model(), masked_model(mask_zero=False)
    unmasked.set_weights(model.get_weights())
    file = exported(unmasked)
    told_apart = verify_file(model, file, tmp_path)
    assert_caught(told_apart, None, "padding=None, the model 'ids' padding=0")
    del file.metadata_props[:]
    file.metadata_props.extend(exported(model).metadata_props)
    assert_caught(verify_file(model, file, tmp_path), "reader", "Output 'reader' for inputs ids")


def test_swapped_gates_are_caught(tmp_path):
    model = recurrent_model()
    file = exported(model)
    (lstm,) = nodes(file, "LSTM")
    kernel = next(t for t in file.graph.initializer if t.name == lstm.input[1])
    change(kernel, lambda w: w[:, np.r_[5:10, 0:5, 10:20]])
    assert_caught(
        verify_file(model, file, tmp_path), "reader", "Output 'head'", "reads the constant"
    )


def test_a_wrong_pad_is_caught(tmp_path):
    model = image_model()
    file = exported(model)
    conv = nodes(file, "Conv")[0]
    for name in ("auto_pad", "pads"):
        found = [a for a in conv.attribute if a.name == name]
        for old in found:
            conv.attribute.remove(old)
    conv.attribute.append(helper.make_attribute("pads", [2, 2, 0, 0]))
    assert_caught(verify_file(model, file, tmp_path), "wide", "pad")


def test_swapped_outputs_are_caught(tmp_path):
    model = two_headed_model()
    file = exported(model)
    swapped = {"left": "right", "right": "left"}
    for node in file.graph.node:
        node.output[:] = [swapped.get(name, name) for name in node.output]
    assert_caught(verify_file(model, file, tmp_path), None, "Output 'left'", "Output|'[lr]'")


def test_outputs_in_another_order_are_caught(tmp_path):
    model = two_headed_model()
    file = exported(model)
    file.graph.output.reverse()
    assert_caught(verify_file(model, file, tmp_path), None, "outputs are named", "'right', 'left'")


def test_an_integer_that_is_off_by_one_is_caught(tmp_path):
    model = class_model()
    file = exported(model)
    for node in file.graph.node:
        node.output[:] = ["winner_before" if name == "winner" else name for name in node.output]
    dtype = file.graph.output[1].type.tensor_type.elem_type
    one = helper.make_tensor("one", dtype, [], [1])
    file.graph.initializer.append(one)
    file.graph.node.append(helper.make_node("Add", ["winner_before", "one"], ["winner"]))
    report = verify_file(model, file, tmp_path)
    assert_caught(report, None, "Output 'winner'", "but must equal")
    assert {check.output for check in report.failures()} == {"winner"}


def test_another_element_type_is_caught(tmp_path):
    model = dense_model()
    file = exported(model)
    for node in file.graph.node:
        node.output[:] = ["before" if name == "last" else name for name in node.output]
    cast = helper.make_node("Cast", ["before"], ["last"], to=onnx.TensorProto.DOUBLE)
    file.graph.node.append(cast)
    file.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    report = verify_file(model, file, tmp_path)
    assert_caught(report, None, "output 'last' has dtype float64, the model's float32")


def test_an_added_axis_is_caught(tmp_path):
    model = dense_model()
    file = exported(model)
    for node in file.graph.node:
        node.output[:] = ["before" if name == "last" else name for name in node.output]
    file.graph.initializer.append(numpy_helper.from_array(np.array([-1, 1, 3]), "one_more"))
    file.graph.node.append(helper.make_node("Reshape", ["before", "one_more"], ["last"]))
    file.graph.output[0].type.tensor_type.ClearField("shape")
    report = verify_file(model, file, tmp_path)
    assert_caught(report, None, "output 'last' has dims")


def test_nan_and_infinity_must_stand_in_the_same_places(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Lambda(keras.ops.log, output_shape=(4,), name="log")(x))
    file = exported(model)
    given = np.array([[1.0, 0.0, -1.0, np.inf]], "float32")
    assert verify_file(model, file, tmp_path, inputs=given).ok
    (log,) = nodes(file, "Log")
    file.graph.node.insert(0, helper.make_node("Abs", ["x"], ["positive"]))
    log.input[0] = "positive"
    report = verify_file(model, file, tmp_path, inputs=given)
    assert_caught(report, "log", r"at \[0, 2\] got 0, expected nan")


def test_weights_trained_after_the_export_are_told_as_such(tmp_path):
    model = dense_model()
    file = exported(model)
    kernel = model.get_layer("second").kernel
    kernel.assign(kernel + NUDGE)
    assert_caught(verify_file(model, file, tmp_path), "second", "made from other weights")
