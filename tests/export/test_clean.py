"""Exported files are clean: named after layers, nothing dead or twice, the same bytes each time."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from onnx_runs import Exported, images, random_weights

import keras_blocks as kb
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.onnx_io.graphs import nested_graphs, reads
from keras_blocks.export.verification.padding import proven_signature

layers = keras.layers


def encoder():
    x = keras.Input((None, 6), name="x")
    h = layers.LayerNormalization(name="norm")(x)
    h = layers.MultiHeadAttention(2, 3, name="attention")(h, h)
    return keras.Model(x, layers.Dense(4, activation="gelu", name="wide")(h), name="encoder")


def images_of_any_size():
    x = keras.Input((None, None, 3), name="x")
    h = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, padding="same", name="conv")(x))
    h = layers.MaxPooling2D(2, name="pool")(layers.ReLU(name="relu")(h))
    return keras.Model(x, layers.GlobalAveragePooling2D(name="mean")(h), name="vision")


def masked():
    x = keras.Input((None,), dtype="int32", name="x")
    h = layers.Embedding(9, 6, mask_zero=True, name="words")(x)
    h = layers.SimpleRNN(3, return_sequences=True, name="simple")(h)
    return keras.Model(x, layers.Bidirectional(layers.GRU(4), name="both")(h), name="m")


def nested():
    inner = keras.Sequential([keras.Input((None, 6)), kb.LSTM(4, name="lstm")], name="inner")
    x, y = keras.Input((None, 6), name="x"), keras.Input((None, 6), name="y")
    head = layers.Dense(2, name="head")
    return keras.Model([x, y], [head(inner(x)), head(inner(y))], name="outer")


def tree():
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    nodes = kb.Embedding(9, 6, name="words")(tokens)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(5), name="tree")([nodes, parents])
    return keras.Model([tokens, parents], kb.Softmax(name="softmax")(root), name="trees")


MODELS = {
    function.__name__: function for function in (encoder, images_of_any_size, masked, nested, tree)
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


@pytest.fixture(scope="module")
def exported():
    """The graph of each model, made once."""
    made = {}

    def of(make):
        if make not in made:
            model = random_weights(make())
            made[make] = model, to_onnx(model, proven_signature(model))
        return made[make]

    return of


def nodes_of(proto):
    return [node for graph in nested_graphs(proto.graph) for node in graph.node]


@every_model
def test_every_node_is_named_by_a_layer_of_the_model(make, exported):
    model, proto = exported(make)
    names = [node.name for node in nodes_of(proto)]
    assert len(set(names)) == len(names)
    paths = {layer.name for layer in model._flatten_layers()}
    for name in names:
        root, *rest = name.split("/")
        assert root == model.name
        # What a model computes between its layers, such as a mask, is its own.
        assert len(rest) == 1 or rest[0] in paths


@every_model
def test_names_hold_no_counters_of_the_conversion(make, exported):
    _, proto = exported(make)
    graphs = list(nested_graphs(proto.graph))
    names = [name for node in nodes_of(proto) for name in (node.name, *node.output)]
    names += [weight.name for graph in graphs for weight in graph.initializer]
    for name in names:
        assert not any(sign in name for sign in ("__", ":", "tfg_inlined", "_frozen"))


@every_model
def test_nothing_is_dead(make, exported):
    _, proto = exported(make)
    for graph in nested_graphs(proto.graph):
        read = {name for node in graph.node for name in reads(node)}
        read |= {value.name for value in graph.output}
        assert all(read.intersection(node.output) for node in graph.node)
        assert {weight.name for weight in graph.initializer} <= read


def without_names(message, *fields):
    copy = type(message)()
    copy.CopyFrom(message)
    for field in fields:
        copy.ClearField(field)
    return copy.SerializeToString(deterministic=True)


@every_model
def test_nothing_is_there_twice(make, exported):
    _, proto = exported(make)
    graphs = list(nested_graphs(proto.graph))
    weights = [without_names(w, "name") for graph in graphs for w in graph.initializer]
    assert len(set(weights)) == len(weights)
    for graph in graphs:
        # What fills a tensor may be written into in place, and each output is a tensor of its own.
        outputs = {value.name for value in graph.output}
        inner = [node for node in graph.node if not outputs.intersection(node.output)]
        nodes = [node for node in inner if node.op_type != "Expand"]
        assert len({without_names(node, "name", "output") for node in nodes}) == len(nodes)


@every_model
def test_the_checker_and_strict_shape_inference_find_nothing(make, exported):
    _, proto = exported(make)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(
        proto, check_type=True, strict_mode=True, data_prop=True
    )
    assert len(inferred.graph.node) == len(proto.graph.node)


@every_model
def test_a_second_export_gives_the_same_bytes(make, exported):
    model, proto = exported(make)
    again = to_onnx(model, proven_signature(model))
    assert again.SerializeToString(deterministic=True) == proto.SerializeToString(
        deterministic=True
    )


PROGRAM = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
import keras
keras.utils.set_random_seed(0)
from test_clean import MODELS
from onnx_runs import random_weights
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.verification.padding import proven_signature
for name in sys.argv[3:]:
    model = random_weights(MODELS[name]())
    proto = to_onnx(model, proven_signature(model))
    print("HASH", name, hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest())
"""


def test_another_process_gives_the_same_bytes():
    here = Path(__file__).parent
    program = PROGRAM.replace("sys.path.insert(0, sys.argv[1])", "sys.path[:0] = sys.argv[1:3]")

    def hashes(names):
        # Python's own hashes differ between the two, and the second has exported more before.
        done = subprocess.run(
            [sys.executable, "-c", program, str(here), str(here.parent), *names],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return {line for line in done.stdout.splitlines() if line.startswith("HASH")}

    assert hashes(list(MODELS)) == hashes(list(reversed(MODELS)))


def test_the_calls_of_a_shared_layer_are_told_apart_by_number(exported):
    _, proto = exported(nested)
    names = [node.name for node in proto.graph.node]
    assert {"outer/inner/lstm/LSTM", "outer/inner/lstm/LSTM_1"} <= set(names)
    assert {"outer/head/MatMul", "outer/head/MatMul_1"} <= set(names)


def test_files_are_right_under_their_names(tmp_path):
    Exported(random_weights(images_of_any_size()), tmp_path / "a.onnx").check(images(2, 7, 6, 3))
    ids = np.array([[1, 0, 3, 4, 0], [0, 2, 5, 8, 1]], "int32")
    Exported(random_weights(masked()), tmp_path / "b.onnx").check(ids)
