"""What the page about native ops shows a user is so."""

import re
from pathlib import Path

from keras_blocks.export.passes.opset import newest as opsets

from keras_blocks.export.lowerings import registry

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
    assert f"opset {opsets.DEFAULT_OPSET} by default" in PAGE
