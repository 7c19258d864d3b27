"""The report of a quantisation says what stayed in float32, and why."""

from __future__ import annotations

import linear_files
import numpy as np
import onnx
import onnx_files
import pytest
from onnx import numpy_helper
from onnx_files import FLOAT, node, tensor

from keras_blocks.export import quantize

SIZE = linear_files.SIZE


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


def save(path, nodes, shapes, **weights):
    inputs = [tensor(name, FLOAT, shape) for name, shape in shapes.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return onnx_files.save(path, nodes, inputs, [tensor("y", FLOAT, None)], constants)


def attention(path):
    """A product by weights, between two that are of activations alone."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"], name="query"),
        node("Transpose", ["x"], ["k"], perm=[0, 2, 1], name="turn"),
        node("MatMul", ["q", "k"], ["scores"], name="scores"),
        node("Softmax", ["scores"], ["shares"], name="shares"),
        node("MatMul", ["shares", "x"], ["y"], name="values"),
    ]
    return save(path, nodes, {"x": ["batch", 5, SIZE]}, w=linear_files.weights())


def one_node(op, shape, weights, *, before=(), **attributes):
    def make(path):
        names = [*weights] if before else ["x", *weights]
        made = node(op, [*names, *before], ["y"], name="node", **attributes)
        return save(path, [made], {"x": shape}, **weights)

    return make


MATRIX = linear_files.weights()
ALL_LEFT = {
    "attention": (
        attention,
        {},
        "2 MatMul left that multiply what is computed (as attention does)",
    ),
    "einsum": (
        one_node("Einsum", ["batch", SIZE], {"w": MATRIX}, equation="bi,ij->bj"),
        {},
        "1 Einsum left with large float32 weights (onnxruntime has no int8 form",
    ),
    "left side": (
        one_node("MatMul", [SIZE, "batch"], {"w": MATRIX}, before=["x"]),
        {},
        "1 MatMul left with large float32 weights (weights can be quantised on the other side",
    ),
    "column": (
        one_node("MatMul", ["batch", SIZE**2], {"w": MATRIX.reshape(-1)}),
        {},
        "1 MatMul left with large float32 weights (they are a single column)",
    ),
    "transposed": (
        one_node("ConvTranspose", ["batch", SIZE, 7], {"w": MATRIX[:, :, None]}),
        {},
        "1 ConvTranspose left with large float32 weights (only calibration= (--calibration) can)",
    ),
    "not asked for": (
        one_node("MatMul", ["batch", SIZE], {"w": MATRIX}),
        {"ops": ["LSTM"]},
        "1 MatMul left with large float32 weights (it is not among ops)",
    ),
    "too small for what was asked": (
        one_node("MatMul", ["batch", SIZE], {"w": MATRIX}),
        {"min_elements": 10_000},
        "1 MatMul left with large float32 weights (they have fewer elements than min_elements)",
    ),
}


@pytest.mark.parametrize(("make", "options", "text"), ALL_LEFT.values(), ids=ALL_LEFT)
def test_what_stays_in_float_is_named_with_its_reason(tmp_path, make, options, text):
    path = make(tmp_path / "m.onnx")
    onnx.save(onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True), path)
    report = quantize(path, **options)
    (note,) = report.notes
    assert note.startswith(text)
    assert report.changed == ({"MatMul": 1} if make is attention else {})


def test_weights_that_are_stored_small_count_as_weights(tmp_path):
    """What was int8 before, by scales or casts, is no product of activations."""
    path = linear_files.product(tmp_path / "m.onnx", MATRIX)
    data = np.random.default_rng(0).normal(size=(20, SIZE)).astype("float32")
    for first in ({"calibration": data}, {"weights_only": True}):
        small = quantize(path, tmp_path / "small.onnx", **first).filepath
        assert quantize(small, tmp_path / "again.onnx").notes == ()
