"""Channels come first where ONNX wants them so, without transposes between neighbours."""

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_runs import Exported, images, random_weights, sequences

import keras_blocks as kb
from keras_blocks.export.conversion import tf2onnx_driver as convert
from keras_blocks.export.passes.conv_folding import fold_into_convolutions
from keras_blocks.export.passes.deduplication import prune
from keras_blocks.export.passes.layout import settle_layout

layers = keras.layers


def exported_of(path, shape, *stack, **options):
    x = y = keras.Input(shape, name="x")
    for layer in stack:
        y = layer(y)
    return Exported(random_weights(keras.Model(x, y)), path / "m.onnx", **options)


def residual_model():
    x = keras.Input((None, None, 4), name="x")
    h = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x)))
    h = layers.Add()([h, layers.Activation("swish")(layers.Conv2D(6, 1)(h))])
    h = layers.Concatenate()([layers.MaxPooling2D(2)(h), layers.AveragePooling2D(2)(h)])
    h = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(h))
    h = layers.MaxPooling2D(2)(layers.SeparableConv2D(5, 3, padding="same")(h))
    return keras.Model(x, layers.GlobalAveragePooling2D()(h))


def test_a_network_of_free_size_is_transposed_once(tmp_path):
    exported = Exported(random_weights(residual_model()), tmp_path / "m.onnx")
    # The image comes with its channels last, behind what refuses one that is too small.
    transposes = [node for node in exported.proto.graph.node if node.op_type == "Transpose"]
    assert len(transposes) == 1
    assert transposes[0].input[0].startswith("functional/x/axis_1_is_at_least_")
    for size in [(9, 8), (8, 8), (10, 13)]:
        exported.check(images(2, *size, 4))


BLOCKS = {
    "stock_1d": ((None, 6), layers.Conv1D(5, 3, padding="same"), layers.MaxPooling1D(2)),
    "stock_3d": ((4, 5, 6, 2), layers.Conv3D(3, 2), layers.MaxPooling3D(2)),
    "ours_2d": ((None, None, 3), kb.Convolution(kb.Vanilla(4), (3, 3)), kb.MaxPooling(2)),
}


@pytest.mark.parametrize(("shape", "convolution", "pooling"), BLOCKS.values(), ids=BLOCKS)
def test_a_convolution_and_a_pooling_meet_without_transposes(shape, convolution, pooling, tmp_path):
    exported = exported_of(tmp_path, shape, convolution, pooling)
    assert sum(node.op_type == "Transpose" for node in exported.proto.graph.node) <= 2
    rank = len(shape) - 1
    for size in [(7, 8, 9), (5, 5, 7), (2, 2, 2)]:
        sizes = [
            free if known is None else known for free, known in zip(size, shape[:-1], strict=False)
        ]
        inputs = images(2, *sizes, shape[-1])
        if rank < 3 and min(sizes) < 3 and convolution.__class__.__name__ != "Conv1D":
            # Keras refuses; ours gives no steps.
            assert 0 in exported.run(inputs)[0].shape
        else:
            exported.check(inputs)


@pytest.mark.parametrize(
    ("shape", "convolution"),
    [
        ((None, None, 4), layers.Conv2D(6, 3, padding="same", use_bias=False)),
        ((None, None, 4), layers.DepthwiseConv2D(3)),
        ((None, None, 4), layers.Conv2D(6, 3, groups=2)),
        ((None, 4), layers.Conv1D(6, 3, padding="causal")),
        ((4, 4, 4, 4), layers.Conv3D(5, 2)),
    ],
    ids=["plain", "depthwise", "grouped", "over_time", "volumes"],
)
def test_a_batch_normalization_goes_into_the_convolution(shape, convolution, tmp_path):
    exported = exported_of(tmp_path, shape, convolution, layers.BatchNormalization())
    assert not {"Mul", "Add", "Sub", "BatchNormalization"} & set(exported.ops)
    sizes = [7 if size is None else size for size in shape]
    exported.check(images(2, *sizes))


def test_what_a_convolution_gives_to_others_too_is_not_scaled(tmp_path):
    x = keras.Input((None, None, 4), name="x")
    h = layers.Conv2D(6, 3)(x)
    model = keras.Model(x, [layers.ReLU()(h), layers.BatchNormalization()(h)])
    Exported(random_weights(model), tmp_path / "m.onnx").check(images(2, 5, 5, 4))


def test_a_shared_convolution_is_scaled_where_it_is_normalized(tmp_path):
    x = keras.Input((None, None, 4), name="x")
    shared = layers.Conv2D(4, 3, padding="same")
    h = layers.BatchNormalization()(shared(x))
    model = keras.Model(x, layers.BatchNormalization()(shared(shared(h))))
    Exported(random_weights(model), tmp_path / "m.onnx").check(images(2, 5, 5, 4))


# Graphs made by hand


def graph_of(nodes, inputs, outputs, **weights):
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "g",
        [value(name, TensorProto.FLOAT, [None] * 4) for name in inputs],
        [value(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()],
    )


def ops(graph):
    return [node.op_type for node in graph.node]


def run(graph, x):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})


def settled(graph):
    """The graph after the pass; both give the same."""
    x = images(2, 3, 4, 5).numpy()
    before = run(graph, x)
    settle_layout(graph)
    prune(graph)
    for want, have in zip(before, run(graph, x), strict=True):
        np.testing.assert_allclose(have, want, rtol=1e-6)
    return ops(graph)


def turned(name, to, perm):
    return helper.make_node("Transpose", [name], [to], perm=perm)


def test_transposes_that_undo_one_another_go():
    there, back = [0, 3, 1, 2], [0, 2, 3, 1]
    nodes = [turned("x", "a", there), turned("a", "b", back), helper.make_node("Neg", ["b"], ["y"])]
    assert settled(graph_of(nodes, ["x"], {"y": 4})) == ["Neg"]


def test_transposes_in_a_row_become_one():
    nodes = [turned("x", "a", [0, 3, 1, 2]), turned("a", "y", [1, 0, 2, 3])]
    assert settled(graph_of(nodes, ["x"], {"y": 4})) == ["Transpose"]


def test_an_output_that_is_turned_back_stays_an_output():
    nodes = [turned("x", "a", [0, 3, 1, 2]), turned("a", "y", [0, 2, 3, 1])]
    assert settled(graph_of(nodes, ["x"], {"y": 4})) == ["Identity"]


def test_a_transpose_moves_past_what_computes_the_same_in_any_order():
    there, back = [0, 3, 1, 2], [0, 2, 3, 1]
    nodes = [
        turned("x", "a", there),
        helper.make_node("Add", ["a", "c"], ["b"]),
        helper.make_node("Concat", ["b", "b"], ["d"], axis=1),
        helper.make_node("Relu", ["d"], ["e"]),
        turned("e", "f", back),
        helper.make_node("Neg", ["f"], ["y"]),
    ]
    constant = np.arange(5.0, dtype="float32").reshape(5, 1, 1)
    assert settled(graph_of(nodes, ["x"], {"y": 4}, c=constant)) == ["Add", "Concat", "Relu", "Neg"]


def test_the_sizes_of_what_was_transposed_are_those_of_before_in_another_order():
    nodes = [
        turned("x", "a", [0, 3, 1, 2]),
        helper.make_node("Shape", ["a"], ["sizes"]),
        helper.make_node("Expand", ["one", "sizes"], ["y"]),
    ]
    graph = graph_of(nodes, ["x"], {"y": 4}, one=np.float32(1))
    assert settled(graph) == ["Shape", "Gather", "Expand"]


def test_a_transpose_that_something_else_reads_too_stays():
    nodes = [
        turned("x", "a", [0, 3, 1, 2]),
        helper.make_node("Relu", ["a"], ["y"]),
        helper.make_node("Softmax", ["a"], ["z"], axis=1),
    ]
    ops = settled(graph_of(nodes, ["x"], {"y": 4, "z": 4}))
    assert ops == ["Transpose", "Relu", "Softmax"]


@pytest.mark.parametrize(
    ("axes", "keepdims", "left"),
    [([1, 2], 0, []), ([1, 2], 1, ["Transpose"]), ([0, 3], 0, []), ([1], 0, ["Transpose"])],
)
def test_a_mean_is_taken_before_the_transpose_if_the_rest_keeps_its_order(axes, keepdims, left):
    reduce = helper.make_node("ReduceMean", ["a", "axes"], ["y"], keepdims=keepdims)
    nodes = [turned("x", "a", [0, 2, 3, 1]), reduce]
    rank = 4 if keepdims else 4 - len(axes)
    graph = graph_of(nodes, ["x"], {"y": rank}, axes=np.array(axes))
    assert settled(graph) == [*left, "ReduceMean"]


@pytest.mark.parametrize(
    ("shape", "perm", "left"),
    [
        ((-1, 1, 1, 4), (0, 3, 1, 2), ["Reshape"]),
        ((3, 1, -1, 2), (1, 0, 2, 3), ["Reshape"]),
        ((-1, 2, 1, 2), (0, 3, 1, 2), ["Reshape", "Transpose"]),
        ((0, 1, -1, 2), (1, 0, 2, 3), ["Reshape", "Transpose"]),
    ],
)
def test_a_transpose_of_single_elements_goes_into_the_reshape_before_it(shape, perm, left):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["flat"]), turned("flat", "y", perm)]
    assert settled(graph_of(nodes, ["x"], {"y": 4}, shape=np.array(shape))) == left


def above_three(x):
    """The part of hard swish that stands alone behind a convolution."""
    return keras.ops.relu6(x + 3.0)


@pytest.mark.parametrize("bias", [False, True])
def test_a_number_is_added_to_a_convolution_without_transposes(bias, monkeypatch, tmp_path):
    tries = []

    def through_tf2onnx(*args, catch_errors, run=convert._through_tf2onnx):
        tries.append(catch_errors)
        return run(*args, catch_errors=catch_errors)

    monkeypatch.setattr(convert, "_through_tf2onnx", through_tf2onnx)
    stack = [layers.Conv2D(4, 3, use_bias=bias), layers.Activation(above_three)]
    exported = exported_of(tmp_path, (None, None, 3), *stack, layers.GlobalAveragePooling2D())
    transposes = [node for node in exported.proto.graph.node if node.op_type == "Transpose"]
    assert len(transposes) == 1
    assert tries == [False], "an optimizer of tf2onnx failed"
    exported.check(images(2, 9, 8, 3))


def folded(nodes, **weights):
    graph = graph_of(nodes, ["x"], {"y": 4}, **weights)
    x = images(2, 3, 4, 5).numpy()
    (before,) = run(graph, x)
    fold_into_convolutions(graph)
    prune(graph)
    np.testing.assert_allclose(run(graph, x)[0], before, rtol=1e-4, atol=1e-4)
    return ops(graph)


KERNEL = np.random.default_rng(0).normal(size=(2, 3, 1, 1)).astype("float32")
CONV = helper.make_node("Conv", ["x", "kernel"], ["a"])


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 1, 1), (1,), ()])
def test_a_constant_for_each_channel_is_folded(op, shape):
    constant = np.arange(1.0, 1 + np.prod(shape, dtype=int), dtype="float32").reshape(shape)
    nodes = [CONV, helper.make_node(op, ["a", "c"], ["b"]), helper.make_node("Neg", ["b"], ["y"])]
    assert folded(nodes, kernel=KERNEL, c=constant) == ["Conv", "Neg"]


@pytest.mark.parametrize("shape", [(1, 1, 4, 1), (5,), (2, 1, 1, 1)])
def test_a_constant_along_another_axis_is_not_folded(shape):
    constant = np.arange(1.0, 1 + np.prod(shape), dtype="float32").reshape(shape)
    nodes = [
        CONV,
        helper.make_node("Mul", ["a", "c"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    assert folded(nodes, kernel=KERNEL, c=constant) == ["Conv", "Mul", "Neg"]


def test_a_constant_less_a_convolution_is_not_folded():
    nodes = [
        CONV,
        helper.make_node("Sub", ["c", "a"], ["b"]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    assert folded(nodes, kernel=KERNEL, c=np.float32(2)) == ["Conv", "Sub", "Neg"]


def test_a_term_and_then_a_factor_are_folded_in_that_order():
    nodes = [
        CONV,
        helper.make_node("Add", ["c", "a"], ["b"]),
        helper.make_node("Mul", ["b", "d"], ["e"]),
        helper.make_node("Neg", ["e"], ["y"]),
    ]
    weights = {"c": np.float32(2), "d": np.array([[[3.0]], [[5.0]]], "float32")}
    assert folded(nodes, kernel=KERNEL, **weights) == ["Conv", "Neg"]


def test_sequences_are_pooled_after_a_causal_convolution(tmp_path):
    causal = layers.Conv1D(5, 3, padding="causal")
    exported = exported_of(tmp_path, (None, 6), causal, layers.AveragePooling1D(2, padding="same"))
    for time in (1, 6):
        exported.check(sequences(2, time))
