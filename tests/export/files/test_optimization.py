"""Graphs saved as onnxruntime optimises them."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_files
import onnxruntime
import pytest
from onnx_files import FLOAT, node, tensor

from keras_blocks.contract import METADATA_KEY
from keras_blocks.export import optimize
from keras_blocks.export.onnx_io.graphs import op_counts


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


@pytest.fixture
def wasteful(tmp_path):
    """y = relu(conv(x)) + (1 + 2), with nodes that do nothing."""
    return onnx_files.save(
        tmp_path / "wasteful.onnx",
        [
            node("Identity", ["x"], ["same"], name="same"),
            node("Add", ["one", "two"], ["three"], name="three"),
            node("Conv", ["same", "kernel"], ["c"], name="conv", kernel_shape=[1, 1]),
            node("Relu", ["c"], ["r"], name="relu"),
            node("Add", ["r", "three"], ["y"], name="plus"),
        ],
        [tensor("x", FLOAT, ["batch", 1, 2, 2])],
        [tensor("y", FLOAT, ["batch", 1, 2, 2])],
        [
            onnx_files.constant("one", FLOAT, [], [1]),
            onnx_files.constant("two", FLOAT, [], [2]),
            onnx_files.constant("kernel", FLOAT, [1, 1, 1, 1], [2]),
        ],
    )


def test_the_basic_level_removes_what_does_nothing_and_stays_standard(wasteful):
    report = optimize(wasteful)
    assert report.filepath.endswith("wasteful.optimized.onnx")
    model = onnx.load(report.filepath)
    assert op_counts(model) == {"Conv": 1, "Relu": 1, "Add": 1}
    assert [entry.domain for entry in model.opset_import] == [""]
    assert report.changed == {"Add": 1, "Identity": 1}
    assert report.max_error == 0
    assert report.notes == ()
    assert report.comparison.original.load_seconds > 0
    inputs = np.array([[[[-1, 1], [2, 3]]]], "float32")
    got = onnxruntime.InferenceSession(report.filepath).run(None, {"x": inputs})[0]
    assert got.tolist() == [[[[3, 5], [7, 9]]]]


@pytest.mark.parametrize("level", ["extended", "all"])
def test_higher_levels_may_use_operators_of_onnxruntimes_own(wasteful, level):
    report = optimize(wasteful, level=level)
    model = onnx.load(report.filepath)
    assert any(node.domain.startswith("com.microsoft") for node in model.graph.node)
    assert report.max_error == 0
    assert any("only onnxruntime has" in note for note in report.notes)
    assert any("processors like this one" in note for note in report.notes) == (level == "all")


def test_contract_and_names_are_kept(tmp_path):
    path = onnx_files.row_sums(tmp_path / "sums.onnx")
    report = optimize(path)
    before, after = onnx.load(path), onnx.load(report.filepath)
    assert [v.name for v in after.graph.input] == [v.name for v in before.graph.input]
    kept = {p.key: p.value for p in after.metadata_props}
    assert kept[METADATA_KEY] == before.metadata_props[0].value


def test_a_level_that_is_none_is_refused(wasteful):
    with pytest.raises(ValueError, match=r"basic, extended, all\. Received: level='best'"):
        optimize(wasteful, level="best")
