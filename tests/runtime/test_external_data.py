"""The size of a model counts the files that it names, wherever in the graph, and no others."""

import json

import numpy as np
import onnx
import onnx_files
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from onnx_files import FLOAT, node, tensor

from keras_blocks.cli.main import main
from keras_blocks.export import compare_files, quantize
from keras_blocks.runtime.external_data import count_bytes, data_files
from keras_blocks.serving import Model

ROWS, COLUMNS = 64, 96  # 24 kB


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


def weight(name, location=None, folder=None):
    made = numpy_helper.from_array(np.ones((ROWS, COLUMNS), "float32"), name)
    if location is not None:
        (folder / location).parent.mkdir(exist_ok=True)
        (folder / location).write_bytes(made.raw_data)
        made.ClearField("raw_data")
        made.data_location = onnx.TensorProto.EXTERNAL
        made.external_data.add(key="location", value=location)
    return made


def initializers(folder):
    """Two weights in files of two names, one of them in a folder."""
    weights = [weight("a", "weights.bin", folder), weight("b", "more/part.data", folder)]
    nodes = [node("Add", ["a", "b"], ["s"]), node("MatMul", ["x", "s"], ["y"])]
    return nodes, weights, ["weights.bin", "more/part.data"]


def branches(folder):
    """A weight of a branch, beside one in an attribute of the other."""
    shape = [tensor("t", FLOAT, [ROWS, COLUMNS])]
    then = onnx.helper.make_graph([node("Identity", ["a"], ["t"])], "then", [], shape)
    then.initializer.append(weight("a", "then.bin", folder))
    constant = node("Constant", [], ["t"], value=weight("", "else.bin", folder))
    orelse = onnx.helper.make_graph([constant], "else", [], shape)
    nodes = [
        node("Equal", ["one", "one"], ["yes"]),
        node("If", ["yes"], ["w"], then_branch=then, else_branch=orelse),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    one = onnx_files.constant("one", onnx_files.INT64, [], [1])
    return nodes, [one], ["then.bin", "else.bin"]


def shared(folder):
    """One file of two weights, under two names."""
    weights = [weight("a", "weights.bin", folder), weight("b", "./weights.bin", folder)]
    nodes = [node("Add", ["a", "b"], ["s"]), node("MatMul", ["x", "s"], ["y"])]
    return nodes, weights, ["weights.bin"]


def none(folder):
    """All weights inside, beside a file of the usual name that is somebody's."""
    (folder / "m.onnx.data").write_bytes(bytes(1000))
    inside = weight("a")
    inside.external_data.add(key="location", value="m.onnx.data")  # of no meaning here
    return [node("MatMul", ["x", "a"], ["y"])], [inside], []


def saved(build, folder):
    nodes, weights, files = build(folder)
    ends = [tensor("x", FLOAT, ["batch", ROWS])], [tensor("y", FLOAT, ["batch", COLUMNS])]
    path = onnx_files.save(folder / "m.onnx", nodes, *ends, weights)
    return path, sum((folder / name).stat().st_size for name in ("m.onnx", *files))


@pytest.mark.parametrize("build", [initializers, branches, shared, none])
def test_every_file_that_is_named_is_counted_once_and_no_other(build, tmp_path):
    path, size = saved(build, tmp_path)
    assert count_bytes(path) == size
    assert size > ROWS * COLUMNS * 4


@pytest.mark.parametrize("build", [initializers, shared, none])
def test_inspecting_and_reports_say_the_same_size(build, tmp_path):
    path, size = saved(build, tmp_path)
    Model.load(path)
    shown = CliRunner().invoke(main, ["inspect", str(path), "--json"])
    assert json.loads(shown.output)["bytes"] == size
    assert f"{size:,} bytes" in CliRunner().invoke(main, ["inspect", str(path)]).output
    assert compare_files(path, path, timed=False).original.size_bytes == size
    report = quantize(path, tmp_path / "small.onnx")
    assert report.comparison.original.size_bytes == size
    assert report.comparison.other.size_bytes == (tmp_path / "small.onnx").stat().st_size


def test_files_that_are_elsewhere_or_missing_are_not_looked_for(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.bin").write_bytes(bytes(24))
    weights = [weight("a", "gone.bin", folder), weight("b", "../outside.bin", folder)]
    (folder / "gone.bin").unlink()
    path = onnx_files.save(folder / "m.onnx", [node("Add", ["a", "b"], ["y"])], [], [], weights)
    assert data_files(path) == []
    assert count_bytes(path) == path.stat().st_size


def test_what_is_no_onnx_file_has_its_own_size(tmp_path):
    path = tmp_path / "m.onnx"
    for content in (b"", b"not ONNX", b"\x3a\xff\xff\xff\xff\x0f"):
        path.write_bytes(content)
        assert count_bytes(path) == len(content)
