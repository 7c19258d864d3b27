"""Files of every opset, and graphs that are brought from one to another."""

import keras
import numpy as np
import onnx
import pytest
from onnx_runs import Exported, random_weights
from opset_models import encoder, graph_of, image_model, masked, run, spectrum

from keras_blocks.errors import ExportError
from keras_blocks.export.passes.opset.newest import (
    LOWEST_OPSET,
    NEWEST_OPSET,
    lift,
)

layers = keras.layers
# Where files begin to hold other ops, and the ends.
OPSETS = [LOWEST_OPSET, 17, 18, 20, 23, 26, NEWEST_OPSET]


MODELS = {"encoder": encoder, "images": image_model}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_file_of_any_opset_gives_the_same(make, opset, tmp_path):
    model, inputs = make()
    exported = Exported(random_weights(model), tmp_path / "m.onnx", opset_version=opset)
    assert {entry.domain: entry.version for entry in exported.proto.opset_import} == {"": opset}
    exported.check(inputs)


@pytest.mark.parametrize("opset", [17, 18, 26])
def test_a_fourier_transform_is_called_as_its_opset_wants(opset, tmp_path):
    model, inputs = spectrum()
    Exported(model, tmp_path / "m.onnx", opset_version=opset).check(inputs)


@pytest.mark.parametrize("opset", [LOWEST_OPSET, NEWEST_OPSET])
def test_loops_and_branches_are_lifted_with_what_is_in_them(opset, tmp_path):
    exported = Exported(random_weights(masked()), tmp_path / "m.onnx", opset_version=opset)
    assert {"If", "Loop"} <= set(exported.ops)
    exported.check(np.array([[1, 0, 3, 4, 0], [0, 2, 5, 9 % 8, 1]], "int32"))


@pytest.mark.parametrize(("axis", "given"), [(1, {}), (2, {"axis": 2})])
def test_the_axis_of_a_fourier_transform_becomes_an_input(axis, given):
    model = graph_of("DFT", {"x": [2, 3, 4, 1]}, 17, rank=4, **given)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype("float32")
    before = run(model, {"x": x})
    wanted = np.fft.fft(x[..., 0], axis=axis)
    np.testing.assert_allclose(before[..., 0] + 1j * before[..., 1], wanted, atol=1e-4)
    lift(model, 22)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, {"x": x}), before, atol=1e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest"])
def test_the_modes_of_a_grid_sample_get_their_new_names(mode):
    model = graph_of("GridSample", {"x": [1, 2, 5, 5], "grid": [1, 3, 3, 2]}, 16, rank=4, mode=mode)
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 2, 5, 5)).astype("float32")
    grid = generator.uniform(-1, 1, (1, 3, 3, 2)).astype("float32")
    before = run(model, {"x": x, "grid": grid})
    lift(model, 22)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, {"x": x, "grid": grid}), before, atol=1e-6)


def test_an_operator_that_is_called_in_another_way_is_refused():
    # Since opset 13 the axes of a Squeeze are an input.
    model = graph_of("Squeeze", {"x": [2, 1]}, 11, axes=[1])
    with pytest.raises(ExportError, match=r"node 'n' is a Squeeze of opset 11, which opset 18"):
        lift(model, 18)


def test_the_runtime_that_the_tests_run_with_loads_the_newest_opset():
    model = graph_of("Relu", {"x": [2]}, 18)
    lift(model, NEWEST_OPSET)
    assert run(model, {"x": np.array([-1, 2], "float32")}).tolist() == [0, 2]
