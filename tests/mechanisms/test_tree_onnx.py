"""The plain graph of the layer becomes two ONNX loops: one over levels, one that finds them."""

import contextlib
import logging
from collections import Counter

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx
from cases import random_parents

import keras_blocks as kb
from keras_blocks.mechanisms.tree_schedule import exporting

OTHER_ORDER = 2e-6  # float32, sums in another order
WIDTH, ARITY = 3, 6
LAYERS = {
    "child_sum": lambda: kb.TreeRecursive(kb.ChildSumTreeLSTMCell(4)),
    "n_ary_nodes": lambda: kb.TreeRecursive(kb.NaryTreeLSTMCell(4, ARITY), return_nodes=True),
    "layer": lambda: kb.TreeRecursive(keras.layers.Dense(4, "tanh"), arity=ARITY),
}


def converted(layer, opset, monkeypatch):
    logger = logging.getLogger("tf2onnx")
    monkeypatch.setattr(logger, "disabled", True)

    def graph(values, row_splits, parents):
        rows = [tf.RaggedTensor.from_row_splits(x, row_splits, False) for x in (values, parents)]
        return tf.identity(getattr(y := layer(rows, training=False), "values", y))

    specs = [
        tf.TensorSpec([None, WIDTH], tf.float32, name="values"),
        tf.TensorSpec([None], tf.int64, name="row_splits"),
        tf.TensorSpec([None], tf.int32, name="parents"),
    ]
    # The context is needed below opset 16 only.
    with exporting(opset) if opset < 16 else contextlib.nullcontext():
        function = tf.function(graph, autograph=False)
        model, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=opset)
    return model


def ops_of(graph):
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            yield from ops_of(attribute.g)


@pytest.mark.parametrize(
    ("name", "opset"), [("child_sum", 15), ("child_sum", 18), ("n_ary_nodes", 18), ("layer", 15)]
)
def test_the_converted_layer_equals_the_layer_on_every_kind_of_batch(name, opset, monkeypatch):
    layer = LAYERS[name]()
    layer.build([(None, None, WIDTH), (None, None)])
    model = converted(layer, opset, monkeypatch)
    ops = Counter(ops_of(model.graph))
    assert ops["Loop"] == 2
    assert not {"Assert", "If", "Scan", "StringFormat"} & ops.keys()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    generator = np.random.default_rng(0)
    batches = [[5], [1], [0], [], [0, 0, 0], [5, 0, 3, 1], [6] * 25]
    rows = [[random_parents(n, generator) for n in lengths] for lengths in batches]
    rows.append([np.arange(n, dtype="int32") - 1 for n in (200, 2, 7)])
    if name == "child_sum":
        rows.append([np.r_[-1, np.zeros(3000, "int32")].astype("int32")])
    for parents in rows:
        splits = np.cumsum([0, *map(len, parents)])
        # A wide star sums many small vectors.
        values = generator.normal(size=(splits[-1], WIDTH), scale=0.1).astype("float32")
        parents = np.concatenate([np.zeros(0, "int32"), *parents])
        feeds = {"values": values, "row_splits": splits, "parents": parents}
        (result,) = session.run(None, feeds)
        pair = [tf.RaggedTensor.from_row_splits(x, splits) for x in (values, parents)]
        expected = layer(pair)
        expected = getattr(expected, "values", expected)
        np.testing.assert_allclose(result, expected, atol=OTHER_ORDER)
