"""float16 files: what is halved, what stays float32, and what rounding makes of the outputs."""

from __future__ import annotations

import json

import linear_files
import numpy as np
import onnx
import onnx_files
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from onnx_files import FLOAT, INT64, node, tensor

from keras_blocks.contract import METADATA_KEY, Contract, TensorSpec
from keras_blocks.errors import ParityError
from keras_blocks.export import to_float16

SIZE = linear_files.SIZE
INPUTS = np.random.default_rng(5).normal(size=(40, SIZE)).astype("float32")
ROUNDING = 1e-5  # of float32 in sums of a hundred products of the order of one
HALF = 5e-3  # some roundings of float16 (eps 1e-3) in outputs of the order of a few


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


@pytest.fixture
def linear(tmp_path):
    return linear_files.product(tmp_path / "linear.onnx", linear_files.weights())


def run(path, inputs=INPUTS):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": inputs})[0]


def test_weights_only_gives_what_rounded_weights_give(linear):
    report = to_float16(linear, weights_only=True, inputs=INPUTS)
    assert report.filepath.endswith("linear.float16.onnx")
    assert report.size_ratio == pytest.approx(0.5, abs=0.02)
    half = linear_files.weights().astype("float16").astype("float32")
    np.testing.assert_allclose(run(report.filepath), INPUTS @ half, atol=ROUNDING)
    assert report.max_error == pytest.approx(
        np.abs(run(report.filepath) - run(linear)).max(), rel=1e-5
    )


def test_a_product_is_halved_between_float32_inputs_and_outputs(linear):
    report = to_float16(linear, inputs=INPUTS)
    assert report.changed == {"MatMul": 1}
    model = onnx.load(report.filepath)
    (weight,) = model.graph.initializer
    assert weight.data_type == TensorProto.FLOAT16
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    np.testing.assert_allclose(run(report.filepath), run(linear), atol=HALF)


def test_inputs_and_outputs_can_be_float16_too_and_the_contract_says_so(linear):
    contract = Contract(
        (TensorSpec("x", "float32", ("batch", SIZE)),),
        (TensorSpec("y", "float32", ("batch", SIZE)),),
    )
    model = onnx.load(linear)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, linear)
    report = to_float16(linear, keep_io_types=False, inputs=INPUTS)
    got = run(report.filepath, INPUTS.astype("float16"))
    assert got.dtype == "float16"
    np.testing.assert_allclose(got, run(linear), atol=HALF)
    kept = {p.key: p.value for p in onnx.load(report.filepath).metadata_props}
    specs = json.loads(kept[METADATA_KEY])
    assert [specs[side][0]["dtype"] for side in ("inputs", "outputs")] == ["float16", "float16"]
    assert "float16 in the other" in " ".join(str(report).split())


def test_an_op_that_onnxruntime_refuses_in_float16_stays_float32(tmp_path):
    path = onnx_files.save(
        tmp_path / "scatter.onnx",
        [
            node("MatMul", ["x", "matrix"], ["z"], name="MatMul"),
            node("ScatterElements", ["z", "places", "z"], ["y"], name="s", axis=1, reduction="add"),
        ],
        [tensor("x", FLOAT, [1, 2])],
        [tensor("y", FLOAT, [1, 2])],
        [
            onnx_files.constant("matrix", FLOAT, [2, 2], [1, 2, 3, 4]),
            onnx_files.constant("places", INT64, [1, 2], [0, 0]),
        ],
    )
    report = to_float16(path)
    assert report.changed == {"MatMul": 1}
    assert report.notes == ("left in float32: 1 ScatterElements",)
    # [1, 1] @ matrix is [4, 6]; both are added to the first.
    assert run(report.filepath, np.ones((1, 2), "float32")).tolist() == [[14.0, 6.0]]


def test_ops_that_are_to_stay_float32_do(linear):
    report = to_float16(linear, keep_ops=["MatMul"])
    assert report.changed == {}
    assert report.notes == ("left in float32: 1 MatMul",)
    with pytest.raises(ValueError, match="the model has no 'matmul'; it has MatMul"):
        to_float16(linear, keep_ops=["matmul"])


def test_branches_stay_float32_but_their_weights_are_stored_in_float16(tmp_path):
    path = linear_files.branches(tmp_path / "branches.onnx", linear_files.weights())
    report = to_float16(path)
    assert report.size_ratio < 0.6
    assert "1 If" in report.notes[0]
    half = linear_files.weights().astype("float16").astype("float32")
    for sign in (1, -1):
        inputs = sign * np.abs(INPUTS)
        want = inputs @ half if sign > 0 else np.maximum(inputs @ half, 0)
        np.testing.assert_allclose(run(report.filepath, inputs), want, atol=ROUNDING)


def test_a_weight_beyond_the_range_of_float16_stays_as_it_is(tmp_path):
    matrix = linear_files.weights()
    matrix[0, 0] = 1e5
    path = linear_files.product(tmp_path / "large.onnx", matrix)
    report = to_float16(path, weights_only=True)
    assert report.max_error == 0
    assert report.verdict().startswith("Nothing was won")


def test_what_overflows_is_told_and_can_be_refused(tmp_path):
    path = linear_files.product(tmp_path / "large.onnx", 1e4 * np.ones((SIZE, 2), "float32"))
    options = {"inputs": np.ones((1, SIZE), "float32"), "keep_io_types": False}
    assert to_float16(path, **options).max_error == np.inf
    with pytest.raises(ParityError, match="off by inf"):
        to_float16(path, tmp_path / "no.onnx", max_error=1, **options)
    assert not (tmp_path / "no.onnx").exists()


def test_the_same_weight_may_be_read_halved_and_whole(tmp_path):
    """A weight that a branch reads too must not change under its feet."""
    path = linear_files.branches(tmp_path / "branches.onnx", linear_files.weights())
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "chosen"
    model.graph.node.append(node("MatMul", ["chosen", "matrix"], ["y"], name="again/MatMul"))
    onnx.save(model, path)
    report = to_float16(path, inputs=INPUTS)
    assert report.changed["MatMul"] == 1
    onnx.checker.check_model(onnx.load(report.filepath), full_check=True)
    np.testing.assert_allclose(run(report.filepath), run(path), atol=HALF)


def test_small_weights_are_not_worth_a_node(tmp_path):
    path = linear_files.product(tmp_path / "tiny.onnx", linear_files.weights(rows=8, columns=8))
    assert to_float16(path, weights_only=True).changed == {}
    stored = onnx.load(tmp_path / "tiny.float16.onnx").graph.initializer[0]
    assert np.array_equal(numpy_helper.to_array(stored), linear_files.weights(rows=8, columns=8))
