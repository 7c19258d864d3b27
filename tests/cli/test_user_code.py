"""Layers of the user's own are known to the commands once their code is imported."""

import json
import sys

import keras
import pytest
from click.testing import CliRunner

from keras_blocks.cli.main import main
from keras_blocks.cli.options import UNREADABLE

CODE = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A model whose layer is in a module that nobody knows any more; the module's name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    (tmp_path / "layers_of_mine.py").write_text(CODE)
    namespace = {"__name__": "__main__"}  # as where a program saves its model
    exec(CODE, namespace)
    inputs = keras.Input((3,), name="x")
    keras.Model(inputs, namespace["Doubled"]()(inputs)).save(tmp_path / "own.keras")
    yield "layers_of_mine"
    keras.saving.get_custom_objects().pop("Doubled", None)


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("ending", ["", ".py"])
def test_a_model_with_layers_of_ones_own_is_exported_and_checked(module, ending, tmp_path):
    code = ("--import", module + ending, "--proof", "fast")
    assert "--import MODULE" in run("export", "own.keras", "-o", "own.onnx").output
    done = run("export", "own.keras", "-o", "own.onnx", "--json", *code)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["op_counts"] in ({"Mul": 1}, {"Add": 1})
    assert run("check", "own.keras", "own.onnx", *code).exit_code == 0


def test_code_that_cannot_be_imported_is_one_line(module, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    (tmp_path / "json.py").write_text("")
    for name, reason in (
        ("nowhere", "No module named 'nowhere'"),
        ("nowhere.py", "No such file"),
        ("broken.py", "ZeroDivisionError: division by zero"),
        ("json.py", "another module is called 'json'"),
    ):
        result = run("export", "own.keras", "-o", "own.onnx", "--import", name)
        assert result.exit_code == UNREADABLE
        assert result.output.startswith(f"Error: --import {name}: ")
        assert reason in result.output
        assert result.output.count("\n") == 1
