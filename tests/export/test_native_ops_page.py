"""What the page about native ops shows a user is so."""

import re
from pathlib import Path

from onnx import helper

from keras_blocks.export.lowerings import registry
from keras_blocks.export.lowerings.layers import norms
from keras_blocks.export.passes import gelu
from keras_blocks.export.passes.opset import newest as opsets
from keras_blocks.runtime.releases import loads_in

PAGE = (Path(__file__).parents[2] / "docs" / "native_ops.md").read_text()


def test_the_layer_of_ones_own_becomes_the_op_that_the_page_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_lowerings", dict(registry._lowerings))
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "native_ops.md", "exec"), {})
    said = re.search(r"op_counts\)  # (.*)", program)[1]
    assert said in capsys.readouterr().out


def test_the_lowering_is_no_longer_than_ten_lines():
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    lowering = program.partition("@lowers")[2].partition("return call")[0]
    assert lowering.count("\n") <= 10


def test_the_opsets_are_those_of_the_exporter():
    lowest, newest = re.search(r"takes (\d+) to (\d+)", PAGE).groups()
    assert (int(lowest), int(newest)) == (opsets.LOWEST_OPSET, opsets.NEWEST_OPSET)
    assert f"lowest opset ({opsets.LOWEST_DEFAULT_OPSET} at least)" in PAGE


def test_the_runtimes_are_those_that_first_had_the_opset():
    said = re.search(
        r"most models load in onnxruntime (\S+) and later, those with gelu in\n(\S+) and later, "
        r"those with `RMSNormalization` in (\S+) and",
        PAGE,
    ).groups()
    opsets_of_ops = (opsets.LOWEST_DEFAULT_OPSET, gelu.SINCE, norms.RMS_NORMALIZATION_SINCE)
    for release, opset in zip(said, opsets_of_ops, strict=True):
        ir_version = helper.OP_SET_ID_VERSION_MAP["ai.onnx", opset]
        assert loads_in({"ai.onnx": opset}, ir_version) == f"onnxruntime {release} and later"
