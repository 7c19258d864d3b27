"""The first onnxruntime that loads a file, by its versions."""

import onnxruntime
import pytest

from keras_blocks.runtime.releases import first_release, loads_in, newest_opset


@pytest.mark.parametrize(
    ("opset", "ir_version", "release"),
    [
        ({"ai.onnx": 17}, 8, (1, 12)),
        ({"": 17}, 8, (1, 12)),
        ({"ai.onnx": 18}, 8, (1, 14)),
        ({"ai.onnx": 18}, 9, (1, 15)),
        ({"ai.onnx": 17}, 10, (1, 18)),  # the format can ask for more than the operators
        ({"ai.onnx": 20}, 9, (1, 17)),
        ({"ai.onnx": 17, "ai.onnx.ml": 4}, 8, (1, 17)),
        ({"ai.onnx": 17, "com.microsoft": 1}, 8, (1, 12)),
        ({"ai.onnx": 26}, 13, (1, 25)),
        ({"ai.onnx": 7}, 3, (1, 10)),
        ({"ai.onnx": 99}, 8, None),
        ({"ai.onnx": 17}, 99, None),
    ],
)
def test_a_file_loads_from_the_release_on_that_knows_all_of_its_versions(
    opset, ir_version, release
):
    assert first_release(opset, ir_version) == release


def test_the_release_is_told_in_words():
    assert loads_in({"ai.onnx": 23}, 11) == "onnxruntime 1.23 and later"
    assert loads_in({"ai.onnx": 99}, 8).startswith("no onnxruntime up to 1.")


@pytest.mark.parametrize(
    ("version", "opset"), [("1.17.0", 20), ("1.20.1", 21), ("1.24.1", 25), ("1.32.0", 28)]
)
def test_a_release_loads_what_those_before_it_do(version, opset):
    assert newest_opset(version) == opset


def test_the_installed_release_is_known():
    assert newest_opset(onnxruntime.__version__) >= 17
