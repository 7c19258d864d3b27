"""Two ONNX files beside each other: every figure of the report against one computed here."""

from __future__ import annotations

import json

import linear_files
import numpy as np
import onnx_files
import pytest
from onnx_files import FLOAT, INT64, node, tensor

from keras_blocks.errors import ContractError, ModelLoadError
from keras_blocks.export import compare_files
from keras_blocks.export.reports.text import NARROWEST

# Errors are sums of float32 on one side and of float64 on the other.
ROUNDING = 1e-5


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


@pytest.fixture
def pair(tmp_path):
    """Two products whose weights differ, and these."""
    first, second = linear_files.weights(1), linear_files.weights(1).copy()
    second[:, 3] += 0.25
    return (
        linear_files.product(tmp_path / "a.onnx", first),
        linear_files.product(tmp_path / "b.onnx", second),
        first,
        second,
    )


def test_errors_are_those_of_the_outputs(pair):
    a, b, first, second = pair
    inputs = np.random.default_rng(0).normal(size=(150, linear_files.SIZE)).astype("float32")
    found = compare_files(a, b, inputs=inputs, timed=False)
    want, have = (inputs.astype("float64") @ matrix for matrix in (first, second))
    (output,) = found.outputs
    error = np.abs(have - want)
    assert output.max_error == pytest.approx(error.max(), rel=ROUNDING)
    assert output.mean_error == pytest.approx(error.mean(), rel=ROUNDING)
    assert output.relative_error == pytest.approx(error.max() / np.abs(want).max(), rel=ROUNDING)
    same = (want.argmax(-1) == have.argmax(-1)).mean()
    assert 0 < same < 1
    assert output.argmax_agreement == pytest.approx(same)
    assert output.elements == want.size
    assert not found.ok
    assert "DIFFER" in str(found)


def test_the_accuracy_is_the_share_of_labels_that_each_file_meets(pair):
    a, b, first, second = pair
    inputs = np.random.default_rng(0).normal(size=(150, linear_files.SIZE)).astype("float32")
    labels = (inputs @ first).argmax(-1)
    labels[:30] = 3
    found = compare_files(a, b, inputs=inputs, labels=labels, timed=False)
    for side, matrix in ((found.original, first), (found.other, second)):
        share = ((inputs @ matrix).argmax(-1) == labels).mean()
        assert side.accuracy == {"y": pytest.approx(share)}
    one_hot = np.eye(linear_files.SIZE)[labels]
    again = compare_files(a, b, inputs=inputs, labels={"y": one_hot}, timed=False)
    assert again.original.accuracy == found.original.accuracy


def test_a_single_value_is_a_yes_above_a_half(tmp_path):
    path = linear_files.product(tmp_path / "a.onnx", np.ones((2, 1), "float32"))
    inputs = np.array([[0.1, 0.2], [0.4, 0.4], [1.0, 2.0]], "float32")
    found = compare_files(path, path, inputs=inputs, labels=[0, 1, 0], timed=False)
    assert found.original.accuracy == {"y": pytest.approx(2 / 3)}


def test_a_file_equals_itself_on_drawn_inputs(pair):
    found = compare_files(pair[0], pair[0])
    assert found.ok
    assert found.max_error == 0
    assert found.samples >= 5
    assert found.seed == 0
    assert set(found.original.run_seconds) == {"batch 1", "batch 32"}
    assert all(seconds > 0 for seconds in found.original.run_seconds.values())


def test_an_error_within_the_tolerance_that_is_asked_for_passes(pair):
    inputs = np.ones((4, linear_files.SIZE), "float32")
    error = 0.25 * linear_files.SIZE
    for atol, ok in ((1.01 * error, True), (0.99 * error, False)):
        found = compare_files(*pair[:2], inputs=inputs, rtol=0.0, atol=atol, timed=False)
        assert found.ok is ok


def test_sizes_and_ops_are_those_of_the_files(pair):
    a, b = pair[:2]
    found = compare_files(a, b, timed=False)
    assert found.original.size_bytes == a.stat().st_size
    assert found.original.op_counts == {"MatMul": 1}
    assert found.original.load_seconds is None


def test_inputs_with_other_names_belong_together_in_their_order(tmp_path):
    matrix = linear_files.weights()
    a = linear_files.product(tmp_path / "a.onnx", matrix)
    b = linear_files.product(tmp_path / "b.onnx", matrix, names=("args_0", "Identity:0"))
    found = compare_files(a, b, timed=False)
    assert found.ok
    assert len(found.notes) == 2
    assert "other names" in found.notes[0]


@pytest.mark.parametrize("columns", [95, 97])
def test_files_of_other_shapes_cannot_be_compared(tmp_path, columns):
    a = linear_files.product(tmp_path / "a.onnx", linear_files.weights())
    other = linear_files.weights(columns=columns)
    b = linear_files.product(tmp_path / "b.onnx", other)
    found = compare_files(a, b)
    assert not found.ok
    assert "output 'y' has shape ['batch', 96] in one file" in found.problem


def test_files_with_another_number_of_inputs_cannot_be_compared(tmp_path):
    a, b = onnx_files.double(tmp_path / "a.onnx"), onnx_files.add_bias(tmp_path / "b.onnx")
    found = compare_files(a, b)
    assert not found.ok
    assert "the inputs of one are ['x'], those of the other ['x', 'bias']" in found.problem


def test_a_file_that_fails_where_the_other_runs_is_told_with_the_shapes(tmp_path):
    a = onnx_files.save(
        tmp_path / "a.onnx",
        [node("Identity", ["x"], ["y"])],
        [tensor("x", FLOAT, ["n"])],
        [tensor("y", FLOAT, ["m"])],
    )
    b = onnx_files.rows_of_four(tmp_path / "b.onnx")
    found = compare_files(a, b, inputs=np.zeros(6, "float32"))
    assert not found.ok
    assert "['m']" in found.problem  # their ranks differ already
    c = onnx_files.save(
        tmp_path / "c.onnx",
        [
            node("Reshape", ["x", "shape"], ["rows"]),
            node("Reshape", ["rows", "flat"], ["y"]),
        ],
        [tensor("x", FLOAT, ["n"])],
        [tensor("y", FLOAT, ["m"])],
        [
            onnx_files.constant("shape", INT64, [2], [-1, 4]),
            onnx_files.constant("flat", INT64, [1], [-1]),
        ],
    )
    found = compare_files(a, c, inputs=np.zeros(6, "float32"))
    assert "the other fails on x [6]" in found.problem
    assert "cannot be compared" in " ".join(str(found).split())
    assert found.outputs == ()


def test_ragged_and_tree_inputs_are_drawn_from_the_contract(tmp_path):
    for make in (onnx_files.row_sums, onnx_files.tree, onnx_files.parse):
        path = make(tmp_path / f"{make.__name__}.onnx")
        found = compare_files(path, path)
        assert found.ok, found
        assert found.samples >= 5


def test_integers_must_equal(tmp_path):
    a = onnx_files.identity(tmp_path / "a.onnx", INT64)
    b = onnx_files.save(
        tmp_path / "b.onnx",
        [node("Add", ["x", "one"], ["y"])],
        [tensor("x", INT64, ["batch"])],
        [tensor("y", INT64, ["batch"])],
        [onnx_files.constant("one", INT64, [], [1])],
    )
    assert compare_files(a, a, timed=False).ok
    assert not compare_files(a, b, rtol=10.0, atol=10.0, timed=False).ok


def test_reports_are_json_and_a_page_and_fit_a_narrow_terminal(pair, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)  # a path of its own is longer than a line, and not broken
    found = compare_files(*(path.name for path in pair[:2]))
    assert max(map(len, str(found).splitlines())) <= NARROWEST
    body = json.loads(found.save(tmp_path / "report.json").read_text())
    assert body["ok"] is False
    assert body["max_error"] == found.max_error
    assert body["original"]["op_counts"] == {"MatMul": 1}
    page = found.save(tmp_path / "report.html").read_text()
    assert "DIFFER" in page
    assert "http" not in page.replace("http-equiv", "")


def test_infinite_errors_are_text_in_json(tmp_path):
    a = onnx_files.log(tmp_path / "a.onnx")
    b = onnx_files.save(
        tmp_path / "b.onnx",
        [node("Identity", ["x"], ["y"])],
        [tensor("x", FLOAT, ["n"])],
        [tensor("y", FLOAT, ["n"])],
    )
    found = compare_files(a, b, inputs=np.zeros(3, "float32"), timed=False)
    assert json.loads(found.to_json())["max_error"] == "inf"
    assert compare_files(a, a, inputs=np.array([0.0, -1.0], "float32"), timed=False).ok


@pytest.mark.parametrize(
    ("content", "error"), [(b"not ONNX", "no ONNX file"), (b"", "no ONNX file")], ids=str
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, content, error):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelLoadError, match=rf"m\.onnx: it is {error}"):
        compare_files(tmp_path / "m.onnx", tmp_path / "m.onnx")
    with pytest.raises(FileNotFoundError, match=r"no file '.*n\.onnx'"):
        compare_files(tmp_path / "n.onnx", tmp_path / "m.onnx")


def test_labels_need_inputs_and_the_shape_of_the_output(pair):
    a, b = pair[:2]
    with pytest.raises(ContractError, match="without inputs"):
        compare_files(a, b, labels=[1])
    inputs = np.ones((4, linear_files.SIZE), "float32")
    with pytest.raises(ContractError, match=r"shape \[3\], but .* shape \[4, 96\]"):
        compare_files(a, b, inputs=inputs, labels=[1, 2, 3], timed=False)
    with pytest.raises(ContractError, match="output 'z' is unknown; the file has y"):
        compare_files(a, b, inputs=inputs, labels={"z": [1]}, timed=False)
