"""What belongs to training and is left in a model or a file is found, and told as such."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_blocks.export import check_parity, export_onnx
from keras_blocks.export.verification.stages.training_mode import training_traces

layers = keras.layers


class Doubled(layers.Layer):
    """Twice the input in training, or `always`."""

    def __init__(self, always: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.always = always

    def call(self, x, training=None):
        return 2 * x if training or self.always else x


class AlwaysDrops(layers.Dropout):
    """Drops in inference too."""

    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


def model_with(layer: layers.Layer) -> keras.Model:
    x = keras.Input((4,), name="x")
    y = layer(layers.Dense(6, "tanh", name="first")(x))
    return keras.Model(x, layers.Dense(3, name="last")(y), name="m")


def test_a_layer_that_draws_in_inference_is_named(tmp_path):
    model, quiet = (model_with(kind(0.5, name="noise")) for kind in (AlwaysDrops, layers.Dropout))
    quiet.set_weights([w for w in model.get_weights() if w.dtype == "float32"])
    export_onnx(quiet, tmp_path / "model.onnx", verify=False)
    report = check_parity(model, tmp_path / "model.onnx")
    assert not report.ok
    assert report.problem is None
    assert report.first_difference.layer == "noise"
    assert "'noise' (AlwaysDrops) draws random numbers. No file can" in report.failure_text()


def test_a_file_that_draws_random_numbers_is_told_as_such(tmp_path):
    model, path = model_with(layers.Dropout(0.5, name="noise")), tmp_path / "model.onnx"
    export_onnx(model, path, opset_version=18, verify=False)  # newer draws have no kernels
    file = onnx.load(path)
    (tanh,) = (node for node in file.graph.node if node.op_type == "Tanh")
    (reader,) = (node for node in file.graph.node if tanh.output[0] in node.input)
    noise = [
        helper.make_node("RandomNormalLike", [tanh.output[0]], ["drawn"], "m/noise/RandomNormal"),
        helper.make_node("Add", [tanh.output[0], "drawn"], ["noisy"], "m/noise/Add"),
    ]
    reader.input[:] = ["noisy" if name == tanh.output[0] else name for name in reader.input]
    place = list(file.graph.node).index(tanh) + 1
    for node in reversed(noise):
        file.graph.node.insert(place, node)
    onnx.save(file, path)
    report = check_parity(model, path)
    assert report.problem is None
    assert report.first_difference.layer == "noise"
    assert "The file holds what belongs to training in layer 'noise'" in report.failure_text()


def test_a_file_that_does_what_the_model_does_in_training_is_told_as_such(tmp_path):
    model, twin = model_with(Doubled(name="d")), model_with(Doubled(always=True, name="d"))
    twin.set_weights(model.get_weights())
    export_onnx(twin, tmp_path / "model.onnx", verify=False)
    report = check_parity(model, tmp_path / "model.onnx")
    assert not report.ok
    assert "computes what the model computes with training=True" in report.failure_text()


def test_a_usual_difference_is_not_blamed_on_training(tmp_path):
    model = model_with(layers.BatchNormalization(name="norm"))
    path = tmp_path / "model.onnx"
    export_onnx(model, path, verify=False)
    model.get_layer("last").bias.assign([1.0, 2.0, 3.0])
    assert "training" not in check_parity(model, path).failure_text()


def test_moving_averages_stay_what_they_are(tmp_path):
    model = model_with(layers.BatchNormalization(name="norm"))
    path = tmp_path / "model.onnx"
    export_onnx(model, path, verify=False)
    model.get_layer("last").bias.assign([1.0, 2.0, 3.0])
    before = model.get_weights()
    assert not check_parity(model, path).ok
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (helper.make_node("Dropout", ["x", "ratio", "on"], ["y"]), True),
        (helper.make_node("Dropout", ["x", "ratio", "off"], ["y"]), False),
        (helper.make_node("Dropout", ["x"], ["y"]), False),
        (helper.make_node("BatchNormalization", list("xsbmv"), ["y"], training_mode=1), True),
        (helper.make_node("BatchNormalization", list("xsbmv"), ["y"]), False),
        (helper.make_node("Bernoulli", ["x"], ["y"]), True),
    ],
)
def test_operations_of_training_are_known(node, found):
    switches = [
        numpy_helper.from_array(np.array(on), "on" if on else "off") for on in (True, False)
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([node], "graph", [value], [], switches)
    assert bool(training_traces(helper.make_model(graph))) == found
