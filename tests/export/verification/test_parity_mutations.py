"""One operation of a right file is altered: even a fast proof catches it, and names its layer."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import keras_blocks as kb
from keras_blocks.export import check_parity, export_onnx

layers, ops = keras.layers, keras.ops
TIME, FEATURES = 9, 6


def chain(*stack: layers.Layer, shape=(None, FEATURES), dtype="float32") -> keras.Model:
    """The layers one after the other."""
    x = y = keras.Input(shape, dtype=dtype, name="x")
    for layer in stack:
        y = layer(y)
    return keras.Model(x, y, name="m")


def two_inputs(layer: layers.Layer) -> keras.Model:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    return keras.Model([a, b], layers.Dense(3, name="after")(layer([a, b])), name="m")


def given_states() -> keras.Model:
    x, h, c = (keras.Input(s, name=n) for s, n in (((None, 6), "x"), ((5,), "h"), ((5,), "c")))
    return keras.Model([x, h, c], layers.LSTM(5, name="target")(x, initial_state=[h, c]), name="m")


def attention() -> keras.Model:
    x = keras.Input((None, 8), name="x")
    return keras.Model(x, layers.MultiHeadAttention(2, 4, name="target")(x, x), name="m")


def summed() -> keras.Model:
    total = layers.Lambda(lambda v: ops.sum(v, 1), output_shape=(FEATURES,), name="target")
    return chain(layers.Dense(FEATURES, name="before"), total, layers.Dense(2, name="after"))


def node_of(graph: onnx.GraphProto, op_type: str) -> onnx.NodeProto:
    (node,) = (node for node in graph.node if node.op_type == op_type and "target" in node.name)
    return node


def attribute(op_type: str, name: str, value: object) -> Callable[[onnx.GraphProto], None]:
    """Gives the node of this op another value of an attribute."""

    def alter(graph: onnx.GraphProto) -> None:
        node = node_of(graph, op_type)
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(name, value))

    return alter


def op(old: str, new: str) -> Callable[[onnx.GraphProto], None]:
    """Puts another op in the place of one."""

    def alter(graph: onnx.GraphProto) -> None:
        node_of(graph, old).op_type = new

    return alter


def inputs(op_type: str, *order: int | None) -> Callable[[onnx.GraphProto], None]:
    """Has the node of this op read its inputs in another order; None leaves one out."""

    def alter(graph: onnx.GraphProto) -> None:
        node = node_of(graph, op_type)
        node.input[:] = ["" if i is None else node.input[i] for i in order]

    return alter


def constant(
    op_type: str, position: int, change: Callable[[np.ndarray], np.ndarray]
) -> Callable[[onnx.GraphProto], None]:
    """Changes a constant that the node of this op reads."""

    def alter(graph: onnx.GraphProto) -> None:
        name = node_of(graph, op_type).input[position]
        (weight,) = (tensor for tensor in graph.initializer if tensor.name == name)
        changed = change(numpy_helper.to_array(weight).copy())
        weight.CopyFrom(numpy_helper.from_array(changed.astype(changed.dtype), name))

    return alter


def no_bias(graph: onnx.GraphProto) -> None:
    node = node_of(graph, "Add")
    node.op_type = "Identity"
    del node.input[1]


def mean_instead(graph: onnx.GraphProto) -> None:
    node = node_of(graph, "ReduceSum")
    (axes,) = (tensor for tensor in graph.initializer if tensor.name == node.input[1])
    node.op_type = "ReduceMean"  # its axes are an attribute in the opset of the file
    keep = [attribute for attribute in node.attribute if attribute.name == "keepdims"]
    del node.attribute[:]
    node.attribute.extend(keep)
    node.attribute.append(helper.make_attribute("axes", numpy_helper.to_array(axes).tolist()))
    del node.input[1]


def one_step_before(graph: onnx.GraphProto) -> None:
    for position in (1, 2):
        constant("Slice", position, lambda v: np.where((v != 0) & (abs(v) < TIME), v - 1, v))(graph)


MUTATIONS = {
    "a sum becomes a mean": (summed, mean_instead),
    "a maximum becomes a mean": (
        lambda: chain(layers.GlobalMaxPooling1D(name="target"), layers.Dense(2)),
        op("ReduceMax", "ReduceMean"),
    ),
    "an epsilon is another": (
        lambda: chain(layers.LayerNormalization(name="target"), layers.Dense(2)),
        attribute("LayerNormalization", "epsilon", 1e-2),
    ),
    "a direction is reversed": (
        lambda: chain(layers.LSTM(5, name="target"), layers.Dense(2)),
        attribute("LSTM", "direction", "reverse"),
    ),
    "a reset comes before the product": (
        lambda: chain(layers.GRU(5, bias_initializer="normal", name="target"), layers.Dense(2)),
        attribute("GRU", "linear_before_reset", 0),
    ),
    "the states are swapped": (given_states, inputs("LSTM", 0, 1, 2, 3, 4, 6, 5)),
    "a state is ignored": (given_states, inputs("LSTM", 0, 1, 2, 3, 4, 5, None)),
    "a bias is dropped": (
        lambda: chain(layers.Dense(4, "tanh", bias_initializer="normal", name="target")),
        no_bias,
    ),
    "a slice is off by one": (
        lambda: chain(layers.Cropping1D((2, 3), name="target"), shape=(TIME, FEATURES)),
        one_step_before,
    ),
    "axes are not swapped": (
        lambda: chain(layers.Permute((2, 1), name="target"), shape=(FEATURES, FEATURES)),
        attribute("Transpose", "perm", [0, 1, 2]),
    ),
    "an activation is approximated": (
        lambda: chain(layers.Activation("gelu", name="target"), layers.Dense(2)),
        attribute("Gelu", "approximate", "tanh"),
    ),
    "a slope is another": (
        lambda: chain(layers.LeakyReLU(0.2, name="target"), layers.Dense(2)),
        attribute("LeakyRelu", "alpha", 0.21),
    ),
    "a bound is another": (
        lambda: chain(layers.ReLU(6.0, name="target"), layers.Dense(2)),
        constant("Clip", 2, lambda bound: bound + 1),
    ),
    "padding is counted": (
        lambda: chain(
            layers.AveragePooling1D(3, 2, padding="same", name="target"), shape=(TIME, FEATURES)
        ),
        attribute("AveragePool", "count_include_pad", 1),
    ),
    "a kernel is flipped": (
        lambda: chain(layers.Conv1D(4, 3, name="target"), shape=(12, FEATURES)),
        constant("Conv", 1, lambda kernel: kernel[..., ::-1]),
    ),
    "scores are scaled otherwise": (attention, constant("Mul", 1, lambda scale: scale * 1.1)),
    "ids are off by one": (
        lambda: chain(
            layers.Embedding(9, 4, name="target"), layers.Dense(2), shape=(None,), dtype="int32"
        ),
        constant("Gather", 0, lambda table: np.roll(table, 1, axis=0)),
    ),
    "statistics are a percent off": (
        lambda: chain(layers.BatchNormalization(name="target"), layers.Dense(2, "tanh")),
        constant("Mul", 1, lambda scale: scale * np.float32(1.01)),
    ),
    "pixels have other centres": (
        lambda: chain(
            layers.UpSampling2D(2, interpolation="bilinear", name="target"), shape=(4, 5, 3)
        ),
        attribute("Resize", "coordinate_transformation_mode", "asymmetric"),
    ),
    "operands are swapped": (
        lambda: two_inputs(layers.Subtract(name="target")), inputs("Sub", 1, 0)
    ),
    "parts are joined in another order": (
        lambda: two_inputs(layers.Concatenate(name="target")), inputs("Concat", 1, 0)
    ),
    "an input is ignored": (lambda: two_inputs(layers.Add(name="target")), inputs("Add", 0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_an_altered_operation_is_caught_and_blamed_on_its_layer(name, tmp_path):
    make, alter = MUTATIONS[name]
    keras.utils.set_random_seed(0)
    model, path = make(), tmp_path / "model.onnx"
    assert export_onnx(model, path, verify="fast").parity.ok
    file = onnx.load(path)
    alter(file.graph)
    onnx.save(file, path)
    report = check_parity(model, path, verify="fast")
    assert not report.ok
    assert report.first_difference.layer == "target", report.first_difference


def test_swapped_children_of_a_tree_are_caught_and_blamed_on_their_layer(tmp_path):
    def model() -> keras.Model:
        nodes = keras.Input((None, 3), ragged=True, name="nodes")
        parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
        cell = kb.NaryTreeLSTMCell(4, 2, name="target")
        tree = kb.TreeRecursive(cell, name="tree")([nodes, parents])
        return keras.Model([nodes, parents], layers.Dense(2, name="after")(tree), name="m")

    right, swapped = model(), model()
    for mine, theirs in zip(right.weights, swapped.weights, strict=True):
        value = mine.numpy()
        if mine.path.endswith("recurrent_kernel"):
            first, second = np.split(value, 2)
            value = np.concatenate([second, first])
        theirs.assign(value)
    export_onnx(swapped, tmp_path / "model.onnx", verify=False)
    report = check_parity(right, tmp_path / "model.onnx", verify="fast")
    assert not report.ok
    assert report.first_difference.layer == "target"
