"""int8 files are right on processors that this one is not: no pair of products leaves 16 bits."""

from __future__ import annotations

import linear_files
import numpy as np
import onnx
import onnx_files
import onnxruntime
import pytest
from onnx import numpy_helper
from onnx_files import FLOAT, INT64, node, tensor
from saturation import LARGEST_SUM, int8_products, multiply_in_pairs, worst_pair, worst_pair_of

from keras_blocks.contract import CHANGES_METADATA_KEY
from keras_blocks.export import optimize, quantize
from keras_blocks.export.files.int8.products import processors_of

GENERATOR = np.random.default_rng(0)
SIZE = linear_files.SIZE
INPUTS = np.random.default_rng(5).normal(size=(40, SIZE)).astype("float32")


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


def draw(*shape):
    return GENERATOR.normal(scale=0.1, size=shape).astype("float32")


def save(path, nodes, shapes, weights, kinds=()):
    """A file with the given inputs, by shape, and weights; its output is `y`."""
    inputs = [tensor(x, dict(kinds).get(x, FLOAT), shape) for x, shape in shapes.items()]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    path = onnx_files.save(path, nodes, inputs, [tensor("y", FLOAT, None)], constants)
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    onnx.save(model, path)
    return path, {
        name: GENERATOR.integers(0, SIZE, [4 if dim == "batch" else dim for dim in shape])
        if name in dict(kinds)
        else draw(*[4 if dim == "batch" else dim for dim in shape])
        for name, shape in shapes.items()
    }


def matmul(path):
    return linear_files.product(path, linear_files.weights()), {"x": INPUTS}


def gemm(path):
    nodes = [node("Gemm", ["x", "w", "b"], ["y"], transB=1, name="gemm")]
    return save(path, nodes, {"x": ["batch", 64]}, {"w": draw(96, 64), "b": draw(96)})


def stacked(path):
    nodes = [node("MatMul", ["x", "w"], ["y"], name="stacked")]
    return save(path, nodes, {"x": ["batch", 3, 7, 64]}, {"w": draw(3, 64, 64)})


def vector(path):
    nodes = [node("MatMul", ["x", "w"], ["y"], name="vector")]
    return save(path, nodes, {"x": ["batch", 1200]}, {"w": draw(1200)})


def lstm(path):
    nodes = [
        node(
            "LSTM", ["x", "w", "r"], ["", "h"], hidden_size=48, direction="bidirectional", name="l"
        ),
        node("ReduceSum", ["h"], ["y"], keepdims=0, name="sum"),
    ]
    weights = {"w": draw(2, 192, 40), "r": draw(2, 192, 48)}
    return save(path, nodes, {"x": [5, "batch", 40]}, weights)


def convolution(path):
    nodes = [node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], name="conv")]
    return save(path, nodes, {"x": ["batch", 32, 6, 6]}, {"w": draw(32, 32, 3, 3)})


def grouped(path):
    nodes = [node("Conv", ["x", "w"], ["y"], group=4, name="grouped")]
    return save(path, nodes, {"x": ["batch", 32, 12]}, {"w": draw(64, 8, 9)})


def transposed(path):
    nodes = [node("ConvTranspose", ["x", "w"], ["y"], name="transposed")]
    return save(path, nodes, {"x": ["batch", 32, 6, 6]}, {"w": draw(32, 32, 3, 3)})


def branches(path):
    return linear_files.branches(path, linear_files.weights()), {"x": INPUTS}


def tied(path, table_first=False):
    """A table that is looked up in and multiplied by, in either order."""
    nodes = [
        node("MatMul", ["x", "w"], ["a"], name="product"),
        node("Gather", ["w", "ids"], ["e"], name="lookup"),
    ]
    both = node("Add", ["a", "e"], ["y"], name="sum")
    shapes = {"x": ["batch", SIZE], "ids": ["batch"]}
    nodes = nodes[:: -1 if table_first else 1]
    return save(path, [*nodes, both], shapes, {"w": draw(SIZE, SIZE)}, {"ids": INT64})


def tied_table_first(path):
    return tied(path, table_first=True)


# Model -> how many products in int8 it comes to, dynamically and with calibration.
MODELS = {
    matmul: (1, 1),
    gemm: (1, 1),
    stacked: (3, 3),
    vector: (0, 0),
    lstm: (4, 4),
    convolution: (0, 1),
    grouped: (0, 1),
    transposed: (0, 0),
    branches: (2, 0),
    tied: (1, 1),
    tied_table_first: (1, 1),
}


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("calibrated", [False, True], ids=["dynamic", "static"])
def test_no_pair_of_products_leaves_16_bits_whatever_the_inputs(tmp_path, build, calibrated):
    path, data = build(tmp_path / "m.onnx")
    expected = MODELS[build][calibrated]
    for per_channel in (True, False):
        options = {"calibration": data} if calibrated else {"inputs": data}
        report = quantize(path, per_channel=per_channel, min_elements=1000, **options)
        model = onnx.load(report.filepath)
        assert worst_pair_of(model) <= LARGEST_SUM
        assert len(list(int8_products(model))) == expected
        assert report.processors == ("any" if expected else None)
        assert report.comparison.outputs[0].relative_error < 0.1
    if expected:
        full = quantize(path, target="vnni", min_elements=1000, **options)
        assert worst_pair_of(onnx.load(full.filepath)) > LARGEST_SUM, "else the test sees nothing"
        assert full.processors == "vnni"
        seven = quantize(path, target="vnni", reduce_range=True, min_elements=1000, **options)
        assert worst_pair_of(onnx.load(seven.filepath)) <= LARGEST_SUM
        assert seven.processors == "any"


def test_a_convolution_without_calibration_has_uint8_weights_of_all_eight_bits(tmp_path):
    path, data = convolution(tmp_path / "m.onnx")
    report = quantize(path, ops=["Conv"], inputs=data)
    (weight,) = (w for w in onnx.load(report.filepath).graph.initializer if len(w.dims) == 4)
    assert weight.data_type == onnx.TensorProto.UINT8
    assert np.ptp(numpy_helper.to_array(weight).astype(int)) > 200
    assert report.processors == "any"


def test_a_table_that_is_only_looked_up_in_keeps_all_eight_bits(tmp_path):
    path, data = tied(tmp_path / "m.onnx")
    report = quantize(path, inputs=data)
    tables = [w for w in onnx.load(report.filepath).graph.initializer if len(w.dims) == 2]
    ranges = {w.data_type: np.ptp(numpy_helper.to_array(w).astype(int)) for w in tables}
    assert ranges[onnx.TensorProto.UINT8] > 200
    assert ranges[onnx.TensorProto.INT8] <= 128
    assert report.changed == {"MatMul": 1, "Gather": 1}


def test_the_bound_is_that_of_the_instruction():
    inputs = GENERATOR.integers(0, 256, (200, 33), "uint8")
    inputs[:2] = [[255], [0]]
    for largest in (64, 65, 127):
        weights = GENERATOR.integers(-largest, largest + 1, (33, 8), "int8")
        weights[:2, :2] = largest, -largest
        exact = inputs.astype(int) @ weights.astype(int)
        fits = worst_pair(weights) <= LARGEST_SUM
        assert fits == (largest == 64)
        assert np.array_equal(multiply_in_pairs(inputs, weights), exact) == fits


@pytest.mark.parametrize("target", ["any", "vnni"])
def test_the_default_file_gives_the_same_where_pairs_saturate(tmp_path, target):
    """The arithmetic of the file by hand, once exactly and once by the instruction."""
    path, data = matmul(tmp_path / "m.onnx")
    report = quantize(path, target=target, inputs=data)
    ((_, weights),) = int8_products(onnx.load(report.filepath))
    scale = {w.name: numpy_helper.to_array(w) for w in onnx.load(report.filepath).graph.initializer}
    scale = next(value for name, value in scale.items() if name.endswith("scale"))
    inputs = INPUTS * 1.0
    inputs[:, :8] = inputs.max()  # what all neighbours share saturates
    step = (inputs.max() - inputs.min()) / 255
    zero = np.rint(-inputs.min() / step)
    small = np.clip(np.rint(inputs / step) + zero, 0, 255).astype("uint8")
    shift = zero * weights.astype(int).sum(0)
    exact = (small.astype(int) @ weights.astype(int) - shift) * step * scale
    elsewhere = (multiply_in_pairs(small, weights) - shift) * step * scale
    if target == "any":
        assert np.array_equal(elsewhere, exact)
        session = onnxruntime.InferenceSession(report.filepath)
        here = session.run(None, {"x": inputs.astype("float32")})[0]
        np.testing.assert_allclose(here, exact, atol=2 * step * scale.max() * 64)
    else:
        assert np.abs(elsewhere - exact).max() > 0.3


def test_the_report_and_the_file_say_for_which_processors_it_is(tmp_path):
    path, data = matmul(tmp_path / "m.onnx")
    plain = quantize(path, inputs=data)
    assert "Processors: right on every processor." in str(plain)
    assert plain.to_dict()["processors"] == "any"
    full = quantize(path, tmp_path / "full.onnx", target="vnni", inputs=data)
    assert "Processors: right on x86 processors with VNNI; on those without" in str(full)
    assert "right on x86 processors with VNNI" in full.to_html()
    (kept,) = (p.value for p in onnx.load(full.filepath).metadata_props if "changes" in p.key)
    assert CHANGES_METADATA_KEY == "keras_blocks.changes"
    assert '"processors": "vnni"' in kept


def test_what_a_file_was_before_counts_too(tmp_path):
    """A file that others made, or that was made for VNNI, stays what it is."""
    path, data = matmul(tmp_path / "m.onnx")
    full = quantize(path, tmp_path / "full.onnx", target="vnni", inputs=data).filepath
    assert quantize(full, tmp_path / "again.onnx", inputs=data).processors == "vnni"
    assert optimize(full, tmp_path / "optimized.onnx", inputs=data).processors == "vnni"
    assert optimize(path, tmp_path / "float.onnx", inputs=data).processors is None
    assert quantize(path, weights_only=True, inputs=data).processors is None


def test_another_target_is_refused(tmp_path):
    path, _ = matmul(tmp_path / "m.onnx")
    with pytest.raises(ValueError, match=r"target: 'any' or 'vnni' expected, got 'avx2'"):
        quantize(path, target="avx2")


def test_weights_in_uint8_are_right_on_every_processor():
    weight = numpy_helper.from_array(np.full((4, 4), 255, "uint8"), "w")
    graph = onnx.helper.make_graph(
        [node("MatMulInteger", ["x", "w"], ["y"])], "g", [], [], [weight]
    )
    assert processors_of(onnx.helper.make_model(graph)) == "any"
