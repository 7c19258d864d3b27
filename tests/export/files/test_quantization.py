"""int8 files: what is quantised, how far that is off, and that nothing else happens."""

from __future__ import annotations

import json

import linear_files
import numpy as np
import onnx
import onnx_files
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx_files import FLOAT, INT64, node, tensor

from keras_blocks.contract import CHANGES_METADATA_KEY, METADATA_KEY, PROOF_METADATA_KEY
from keras_blocks.errors import ContractError, ExportError, ModelLoadError, ParityError
from keras_blocks.export import quantize
from keras_blocks.export.files import changes
from keras_blocks.export.onnx_io.graphs import nested_graphs, op_counts

SIZE = linear_files.SIZE
SEVEN_BITS = 64  # the largest weight that is multiplied in int8 on any processor
ROUNDING = 1e-5  # of float32 in sums of a hundred products of the order of one
INPUTS = np.random.default_rng(5).normal(size=(40, SIZE)).astype("float32")


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


@pytest.fixture
def linear(tmp_path):
    return linear_files.product(tmp_path / "linear.onnx", linear_files.weights())


def run(path, inputs=INPUTS, name="x"):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: inputs})[0]


def rounded(values, levels, axis=None):
    """What int8 makes of values: multiples of a scale, the largest of them `levels` times it."""
    scale = np.abs(values).max(axis=axis, keepdims=True) / levels
    return np.rint(values / scale) * scale


def test_a_product_in_int8_is_that_of_rounded_weights_and_inputs(linear):
    report = quantize(linear, inputs=INPUTS)
    assert report.filepath.endswith("linear.int8.onnx")
    assert report.changed == {"MatMul": 1}
    assert op_counts(onnx.load(report.filepath))["MatMulInteger"] == 1
    matrix = rounded(linear_files.weights(), SEVEN_BITS, axis=0)
    step = (INPUTS.max() - INPUTS.min()) / 255
    want = (np.rint(INPUTS / step) * step) @ matrix
    np.testing.assert_allclose(run(report.filepath), want, atol=ROUNDING)


def test_the_report_gives_the_errors_of_the_file_that_was_written(linear):
    report = quantize(linear, inputs=INPUTS)
    error = np.abs(run(report.filepath) - run(linear))
    assert report.max_error == pytest.approx(error.max(), rel=1e-5)
    assert report.comparison.outputs[0].mean_error == pytest.approx(error.mean(), rel=1e-5)
    assert report.size_ratio == pytest.approx(
        (linear.parent / "linear.int8.onnx").stat().st_size / linear.stat().st_size
    )
    assert report.size_ratio < 0.4
    assert report.comparison.seed is None
    assert "0.2" in report.verdict() or "0.3" in report.verdict()


def test_weights_only_rounds_the_weights_and_nothing_else(linear, tmp_path):
    report = quantize(linear, tmp_path / "small.onnx", weights_only=True, inputs=INPUTS)
    assert report.changed == {"MatMul": 1}
    assert report.size_ratio < 0.4
    best = min(
        (rounded(linear_files.weights(), 127, axis) for axis in (None, 0, 1)),
        key=lambda matrix: np.square(matrix - linear_files.weights()).mean(),
    )
    np.testing.assert_allclose(run(tmp_path / "small.onnx"), INPUTS @ best, atol=ROUNDING)


def test_a_calibrated_product_saturates_where_the_data_ended(linear, tmp_path):
    report = quantize(linear, tmp_path / "static.onnx", calibration=INPUTS)
    assert report.changed == {"MatMul": 1}
    assert report.change == "static int8"
    ops = op_counts(onnx.load(report.filepath))
    assert ops["QuantizeLinear"] >= 1
    assert report.comparison.samples == 1  # it is judged on the calibration data
    matrix = linear_files.weights()
    inside = np.abs(run(report.filepath) - INPUTS @ matrix).max()
    assert inside < 0.1
    # Ten times the inputs are cut off at the largest that was seen: the ranges are fixed.
    beyond = np.abs(run(report.filepath, 10 * INPUTS) - 10 * INPUTS @ matrix).max()
    assert beyond > 20 * inside


@pytest.mark.parametrize("kind", ["dict", "batches", "npz"])
def test_calibration_data_of_any_form_gives_the_same_file(linear, tmp_path, kind):
    np.savez(tmp_path / "data.npz", x=INPUTS)
    data = {
        "dict": {"x": INPUTS},
        "batches": (part for part in np.split(INPUTS, 4)),
        "npz": tmp_path / "data.npz",
    }[kind]
    quantize(linear, tmp_path / "a.onnx", calibration=INPUTS, inputs=INPUTS)
    quantize(linear, tmp_path / "b.onnx", calibration=data, inputs=INPUTS)
    assert np.array_equal(run(tmp_path / "a.onnx"), run(tmp_path / "b.onnx"))


def test_labels_give_the_accuracy_of_both_files(linear):
    labels = run(linear).argmax(-1)
    report = quantize(linear, inputs=INPUTS, labels=labels)
    share = (run(report.filepath).argmax(-1) == labels).mean()
    assert report.comparison.original.accuracy == {"y": 1.0}
    assert report.comparison.other.accuracy == {"y": pytest.approx(share)}
    assert "accuracy, y" in str(report)


def test_a_weight_that_two_branches_share_is_quantised_once(tmp_path):
    matrix = linear_files.weights(2)
    path = linear_files.branches(tmp_path / "branches.onnx", matrix)
    report = quantize(path, min_elements=0)
    assert report.changed == {"MatMul": 2}
    model = onnx.load(report.filepath)
    stored = [w for g in nested_graphs(model.graph) for w in g.initializer if len(w.dims) == 2]
    assert [weight.data_type for weight in stored] == [onnx.TensorProto.INT8]
    for sign in (1, -1):
        error = np.abs(
            run(report.filepath, sign * np.abs(INPUTS)) - run(path, sign * np.abs(INPUTS))
        )
        assert error.max() < 0.2
    assert report.max_error > 0


def test_calibration_reaches_what_is_behind_a_branch(tmp_path):
    """What an `If` gives is computed, to calibrate the product that reads it."""
    matrix = linear_files.weights(3)
    path = linear_files.branches(tmp_path / "branches.onnx", matrix)
    model = onnx.load(path)
    model.graph.node[-1].output[0] = "chosen"
    model.graph.node.append(node("MatMul", ["chosen", "behind"], ["y"], name="behind/MatMul"))
    model.graph.initializer.append(numpy_helper.from_array(linear_files.weights(4), "behind"))
    onnx.save(model, path)
    report = quantize(path, calibration=INPUTS)
    assert report.changed == {"MatMul": 1}
    assert "2 MatMul left with large float32 weights (inside loops and branches)" in str(
        " ".join(report.notes)
    )
    assert np.abs(run(report.filepath) - run(path)).max() < 0.2


def embedding(path):
    return onnx_files.save(
        path,
        [
            node("Gather", ["table", "ids"], ["vectors"], name="embedding/Gather"),
            node("ReduceSum", ["vectors", "axis"], ["y"], name="sum", keepdims=0),
        ],
        [tensor("ids", INT64, ["batch", "time"])],
        [tensor("y", FLOAT, ["batch", SIZE])],
        [
            numpy_helper.from_array(linear_files.weights(), "table"),
            onnx_files.constant("axis", INT64, [1], [1]),
        ],
    )


def test_an_embedding_is_quantised_in_every_way(tmp_path):
    path = embedding(tmp_path / "embedding.onnx")
    ids = np.arange(SIZE).reshape(8, 12)
    for way in ({}, {"calibration": {"ids": ids}}, {"weights_only": True}):
        report = quantize(path, inputs={"ids": ids}, **way)
        assert report.changed == {"Gather": 1}
        assert report.size_ratio < 0.4
        assert 0 < report.max_error < 0.05


def test_small_weights_stay_and_the_report_says_that_nothing_was_won(tmp_path):
    path = linear_files.product(tmp_path / "tiny.onnx", linear_files.weights(rows=8, columns=8))
    report = quantize(path)
    assert report.changed == {}
    assert report.max_error == 0
    assert report.verdict().startswith("Nothing was won")
    assert report.notes == ("1 MatMul left, whose weights have fewer than 4096 elements",)
    assert quantize(path, min_elements=64).changed == {"MatMul": 1}


def convolution(path, channels=32):
    kernel = np.random.default_rng(0).normal(scale=0.1, size=(channels, channels, 3, 3))
    return onnx_files.save(
        path,
        [node("Conv", ["x", "kernel"], ["y"], name="conv/Conv", pads=[1, 1, 1, 1])],
        [tensor("x", FLOAT, ["batch", channels, 6, 6])],
        [tensor("y", FLOAT, ["batch", channels, 6, 6])],
        [numpy_helper.from_array(kernel.astype("float32"), "kernel")],
    )


def test_a_convolution_waits_for_calibration_or_to_be_named(tmp_path):
    path = convolution(tmp_path / "conv.onnx")
    plain = quantize(path)
    assert plain.changed == {}
    assert "1 Conv left with large float32 weights (they would be slower" in plain.notes[0]
    assert quantize(path, ops=["Conv"]).changed == {"Conv": 1}
    data = np.random.default_rng(1).normal(size=(8, 32, 6, 6))
    static = quantize(path, calibration=data)
    assert static.changed == {"Conv": 1}
    assert static.size_ratio < 0.4
    assert static.max_error < 0.2


def test_an_op_without_an_int8_form_is_named_in_the_report(tmp_path):
    path = onnx_files.recurrent(tmp_path / "gru.onnx")
    model = onnx.load(path)
    hidden = 64
    for weight, shape in zip(model.graph.initializer, ((1, 192, 3), (1, 192, hidden)), strict=True):
        values = np.random.default_rng(0).normal(size=shape).astype("float32")
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    model.graph.node[0].attribute[0].i = hidden
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = hidden
    onnx.save(model, path)
    report = quantize(path)
    assert "1 GRU left with large float32 weights (onnxruntime has no int8 form" in report.notes[0]
    assert quantize(path, weights_only=True).changed == {"GRU": 1}


def test_the_contract_stays_and_the_proof_becomes_a_part_of_the_story(tmp_path):
    path = onnx_files.row_sums(tmp_path / "sums.onnx")
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = PROOF_METADATA_KEY, json.dumps({"ok": True, "samples": 3})
    onnx.save(model, path)
    before = {p.key: p.value for p in onnx.load(path).metadata_props}
    quantize(path, tmp_path / "once.onnx")
    quantize(tmp_path / "once.onnx", tmp_path / "twice.onnx", weights_only=True)
    after = {p.key: p.value for p in onnx.load(tmp_path / "twice.onnx").metadata_props}
    assert after[METADATA_KEY] == before[METADATA_KEY]
    assert PROOF_METADATA_KEY not in after
    first, second = json.loads(after[CHANGES_METADATA_KEY])
    assert first["change"] == "dynamic int8"
    assert first["proof_before"] == {"ok": True, "samples": 3}
    assert first["max_error"] == 0
    assert second["change"].startswith("weights in int8")


def test_the_input_stays_as_it_is_unless_overwriting_is_asked_for(linear, tmp_path):
    before = linear.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(linear)
    for output in (linear, str(linear), tmp_path / "." / "linear.onnx", link):
        with pytest.raises(ValueError, match="is the file to be changed"):
            quantize(linear, output)
    quantize(linear, tmp_path / "other.onnx")
    assert linear.read_bytes() == before
    report = quantize(linear, linear, overwrite=True)
    assert linear.read_bytes() != before
    assert report.comparison.original.size_bytes == len(before)


def test_the_same_file_gives_the_same_bytes(linear, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        quantize(linear, tmp_path / name, inputs=INPUTS)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_an_error_beyond_the_limit_leaves_no_file(linear, tmp_path):
    target = tmp_path / "small.onnx"
    target.write_text("an older file")
    with pytest.raises(ParityError, match=r"off by .* where max_error=1e-06 is allowed") as caught:
        quantize(linear, target, max_error=1e-6)
    assert caught.value.report.max_error > 1e-6
    assert target.read_text() == "an older file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["linear.onnx", "small.onnx"]
    assert quantize(linear, target, max_error=1.0).max_error < 1.0


def test_an_interrupted_run_leaves_nothing(linear, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(changes, "compare_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(linear, tmp_path / "small.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["linear.onnx"]


def test_bad_files_and_data_are_refused_before_anything_is_written(linear, tmp_path):
    (tmp_path / "text.onnx").write_text("not ONNX")
    with pytest.raises(ModelLoadError, match=r"text\.onnx: it is no ONNX file"):
        quantize(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError, match="no file"):
        quantize(tmp_path / "missing.onnx")
    for data, message in (
        ({"x": INPUTS, "z": INPUTS}, "calibration: input 'z' is unknown; the model takes 'x'"),
        (INPUTS[:, 1:], r"shape \[40, 95\] .* \[batch, 96\] expected"),
        ([], "calibration holds no batch"),
        (INPUTS[:0], "input 'x': it is empty"),
    ):
        with pytest.raises(ContractError, match=message):
            quantize(linear, calibration=data)
    with pytest.raises(ValueError, match=r"'GRU' has no int8 form here; Conv, Gather, "):
        quantize(linear, ops=["GRU"])
    with pytest.raises(ValueError, match="weights_only stores all"):
        quantize(linear, calibration=INPUTS, weights_only=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["linear.onnx", "text.onnx"]


def test_a_file_of_an_old_opset_is_refused_with_the_way_out(linear):
    model = onnx.load(linear)
    model.opset_import[0].version = 11
    onnx.save(model, linear)
    with pytest.raises(ExportError, match="opset 11, and int8 needs 13 or more"):
        quantize(linear)
