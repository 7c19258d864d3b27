"""A conversion that goes wrong is led back to its layer, however deep the layer sits."""

from __future__ import annotations

import re

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

import keras_blocks as kb
from keras_blocks.errors import ParityError
from keras_blocks.export import check_parity, export_onnx, lowers
from keras_blocks.export.conversion.layer_probe import Probe
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.verification.diagnosis.graph_difference import GraphWalk, layer_of
from keras_blocks.export.verification.padding import proven_signature

layers = keras.layers


class Twice(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return 2 * x


class Broken(Twice):
    pass


@lowers(Twice)
def not_quite_twice(layer):
    return lambda x: 2.001 * x


@lowers(Broken)
def breaks(layer):
    return lambda x: keras.ops.reshape(x, (3, -1, 4))


def in_a_chain(culprit: keras.layers.Layer) -> keras.Model:
    x = keras.Input((None, 4), name="x")
    y = culprit(layers.Dense(4, name="before")(x))
    return keras.Model(x, layers.Dense(2)(layers.LSTM(3, name="after")(y)))


def in_a_model_in_a_model(culprit: keras.layers.Layer) -> keras.Model:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), culprit], name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(2)(inner(x)))


def in_a_block_on_ragged_rows(culprit: keras.layers.Layer) -> keras.Model:
    x = keras.Input((None, 4), ragged=True, name="x")
    return keras.Model(x, kb.Stacked([kb.Vanilla(4), culprit, kb.GRU(3)])(x))


class Subclassed(keras.Model):
    def __init__(self, culprit: keras.layers.Layer):
        super().__init__()
        self.before, self.culprit, self.after = layers.Dense(4), culprit, layers.Dense(2)

    def call(self, x):
        return self.after(self.culprit(self.before(x)))


def in_a_subclassed_model(culprit: keras.layers.Layer) -> keras.Model:
    model = Subclassed(culprit)
    model(np.zeros((2, 4), "float32"))
    return model


PLACES = [in_a_chain, in_a_model_in_a_model, in_a_block_on_ragged_rows, in_a_subclassed_model]


@pytest.mark.parametrize("place", PLACES)
def test_a_wrong_lowering_is_the_first_layer_that_differs(place, tmp_path):
    model = place(Twice(name="culprit"))
    path = tmp_path / "model.onnx"
    with pytest.raises(ParityError) as caught:
        export_onnx(model, path)
    assert not path.exists()
    assert caught.value.report.first_difference.layer == "culprit"
    assert "The first layer that differs is layer 'culprit' (Twice)" in str(caught.value)


def test_a_lowering_that_does_not_run_is_named(tmp_path):
    model = in_a_chain(Broken(name="culprit"))
    with pytest.raises(ParityError, match="onnxruntime fails where Keras does not") as caught:
        export_onnx(model, tmp_path / "model.onnx")
    assert caught.value.report.first_difference.layer == "culprit"
    assert "A fresh export fails in layer 'culprit' (Broken)" in str(caught.value)


def test_a_layer_in_a_loop_is_named_by_the_layer_that_holds_the_loop(tmp_path):
    x = keras.Input((None, 4), name="x")
    cell = kb.Stacked([layers.Dense(4), Twice(name="culprit")])
    model = keras.Model(x, kb.Recurrence(cell, name="loop")(x))
    with pytest.raises(ParityError) as caught:
        export_onnx(model, tmp_path / "model.onnx")
    assert caught.value.report.first_difference.layer in ("loop", "culprit")


def test_a_layer_that_a_lowering_calls_less_often_is_not_blamed(tmp_path):
    # Keras calls the inner layer at every step, the export once on all of them.
    x = keras.Input((None, 4), name="x")
    steps = layers.TimeDistributed(layers.Dense(4, name="inner"), name="steps")(x)
    model = keras.Model(x, Twice(name="culprit")(steps))
    export_onnx(model, tmp_path / "model.onnx", verify=False)
    given = np.ones((2, 3, 4), "float32")
    report = check_parity(model, tmp_path / "model.onnx", inputs=given)
    assert report.first_difference.layer == "culprit"


def test_layers_with_confusable_names_are_told_apart(tmp_path):
    # Keras traces the layer 'dense' in the scope 'dense_1', if it likes.
    x = keras.Input((4,), name="x")
    y = x
    for name in ("dense", "dense_1", "dense_1_1", "dense_2"):
        y = layers.Dense(4, name=name)(y)
    model = keras.Model(x, y)
    for number, name in enumerate(("dense", "dense_1", "dense_1_1", "dense_2")):
        file = to_onnx(model, proven_signature(model))
        read = {name for node in file.graph.node for name in node.input}
        kernel = model.get_layer(name).kernel.numpy()
        found = [w for w in file.graph.initializer if w.name in read and list(w.dims) == [4, 4]]
        (weight,) = (w for w in found if np.array_equal(numpy_helper.to_array(w), kernel))
        weight.CopyFrom(numpy_helper.from_array(kernel + 0.01, weight.name))
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(file.SerializeToString())
        assert check_parity(model, path).first_difference.layer == name


def test_a_probe_gives_inner_layers_before_the_layers_that_hold_them():
    model = in_a_model_in_a_model(Twice(name="culprit"))
    probe = Probe(model)
    values = probe(np.ones((2, 4), "float32"))
    order = [seen.layer for seen in probe.seen]
    assert order.index("culprit") < order.index("inner")
    inner = dict(zip(order, values, strict=True))
    np.testing.assert_array_equal(inner["culprit"], inner["inner"])


def graph(op: str = "Add", weight: float = 1.0, **renames: str) -> onnx.ModelProto:
    name = {"h": "h", "w": "w", "node": "net/first/Add", **renames}
    nodes = [
        helper.make_node(op, ["x", name["w"]], [name["h"]], name=name["node"]),
        helper.make_node("Softmax", [name["h"]], ["y"], name="net/second/Softmax", axis=-1),
    ]
    value = numpy_helper.from_array(np.array([weight, 2.0], "float32"), name["w"])
    dims = {side: helper.make_tensor_value_info(side, TensorProto.FLOAT, ["b", 2]) for side in "xy"}
    made = helper.make_graph(nodes, "g", [dims["x"]], [dims["y"]], [value])
    return helper.make_model(made)


def test_the_names_inside_a_graph_do_not_matter():
    assert GraphWalk(graph(), graph(h="h__17", w="W_3", node="other")).alterations == []


@pytest.mark.parametrize(
    ("altered", "message"),
    [
        (graph(weight=1.5), r"differs in 1 of 2 elements: at \[0\] the file has 1.5, .* gives 1.0"),
        (graph(op="Mul"), "is 'Mul', not 'Add'"),
        (graph(weight=float("nan")), "the file has nan"),
    ],
)
def test_an_altered_graph_is_led_back_to_node_and_layer(altered, message):
    (alteration,) = GraphWalk(graph(), altered).alterations
    assert alteration.node == "net/first/Add"
    assert re.search(message, alteration.message)
    scopes = {"net": "net", "net/first": "first", "net/second": "second"}
    assert layer_of(graph().graph, alteration.node, scopes) == "first"


def test_of_several_alterations_the_first_in_the_order_of_computation_counts():
    altered = graph(weight=3.0)
    altered.graph.node[1].attribute[0].i = 0
    first, second = GraphWalk(graph(), altered).alterations
    assert (first.node, second.node) == ("net/first/Add", "net/second/Softmax")
    assert second.message == "has axis=0, not -1"


def test_a_node_without_a_telling_name_belongs_to_the_layer_that_reads_it():
    scopes = {"net/second": "second"}
    assert layer_of(graph(node="Transpose__12").graph, "Transpose__12", scopes) == "second"
    assert layer_of(graph().graph, "gone", scopes) is None


def test_a_change_inside_a_loop_body_is_found():
    def loop(step: float) -> onnx.ModelProto:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["cond_in"], ["cond_out"]),
                helper.make_node("Add", ["state_in", "step"], ["state_out"], name="net/loop/Add"),
            ],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state_in", TensorProto.FLOAT, [2]),
            ],
            [
                helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state_out", TensorProto.FLOAT, [2]),
            ],
            [numpy_helper.from_array(np.array([step, 1], "float32"), "step")],
        )
        trips = numpy_helper.from_array(np.array(3, "int64"), "trips")
        node = helper.make_node("Loop", ["trips", "", "x"], ["y"], name="net/loop", body=body)
        dims = [helper.make_tensor_value_info(side, TensorProto.FLOAT, [2]) for side in "xy"]
        return helper.make_model(helper.make_graph([node], "g", dims[:1], dims[1:], [trips]))

    assert GraphWalk(loop(1.0), loop(1.0)).alterations == []
    (alteration,) = GraphWalk(loop(1.0), loop(4.0)).alterations
    assert alteration.node == "net/loop/Add"
    assert "the file has 4.0, the model gives 1.0" in alteration.message


class OtherInGraphs(layers.Layer):
    """What a bug of tracing looks like: the graph does not do what the code does."""

    def call(self, x):
        return 2 * x if tf.executing_eagerly() else 3 * x


def test_a_graph_that_is_not_what_keras_computes_is_caught(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, OtherInGraphs(name="culprit")(layers.Dense(4)(x)))
    with pytest.raises(ParityError) as caught:
        export_onnx(model, tmp_path / "model.onnx")
    assert caught.value.report.first_difference.layer == "culprit"


def test_a_graph_of_keras_that_is_wrong_does_not_condemn_a_right_file(tmp_path):
    # Traced with free time, TimeDistributed goes over as many steps as there are rows.
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.TimeDistributed(layers.Dense(3))(x))
    assert export_onnx(model, tmp_path / "model.onnx").parity.ok
