"""Every change of every kind of exported model: it stays what it was, but for rounding."""

from __future__ import annotations

import keras
import linear_files
import numpy as np
import onnx
import onnx_files
import onnx_runs
import onnxruntime
import pytest
from saturation import LARGEST_SUM, worst_pair_of

import keras_blocks as kb
from keras_blocks.contract import METADATA_KEY
from keras_blocks.export import compare_files, export_onnx, optimize, quantize, to_float16
from keras_blocks.export.files import changes
from keras_blocks.export.onnx_io.graphs import op_counts

# What rounding to int8 or float16 moves outputs of the order of one by; a lost weight or a swapped
# gate moves them by much more.
INT8, HALF, SAME = 0.25, 0.02, 1e-6
GENERATOR = np.random.default_rng(0)


def perceptron():
    inputs = keras.Input((80,), name="x")
    hidden = kb.Vanilla(96, activation="relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(5, name="y")(hidden))


def images():
    inputs = keras.Input((10, 10, 3), name="x")
    hidden = keras.layers.Conv2D(24, 3, activation="relu")(inputs)
    hidden = keras.layers.Conv2D(24, 3, padding="same")(keras.layers.MaxPooling2D()(hidden))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="y")(hidden))


def sequence():
    inputs = keras.Input((None, 40), name="x")
    return keras.Model(inputs, keras.layers.LSTM(32, name="y")(inputs))


def masked():
    inputs = keras.Input((None,), dtype="int32", name="x")
    hidden = keras.layers.Embedding(200, 32, mask_zero=True)(inputs)
    return keras.Model(inputs, keras.layers.LSTM(32, name="y")(hidden))


def ragged():
    inputs = keras.Input((None,), dtype="int32", ragged=True, name="x")
    return keras.Model(inputs, kb.GRU(40, name="y")(kb.Embedding(200, 40)(inputs)))


def tree():
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    nodes = kb.Embedding(200, 32)(tokens)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(48), name="y")([nodes, parents])
    return keras.Model({"tokens": tokens, "parents": parents}, root)


ROWS = [GENERATOR.integers(1, 200, n).tolist() for n in (9, 0, 1, 17, 4, 6)]
PARENTS = [[node // 2 if node else -1 for node in range(len(row))] for row in ROWS]
DATA = {
    perceptron: {"x": GENERATOR.normal(size=(30, 80))},
    images: {"x": GENERATOR.normal(size=(30, 10, 10, 3))},
    sequence: {"x": GENERATOR.normal(size=(30, 9, 40))},
    # Enough rows and steps to run in groups, each with an LSTM of its own.
    masked: {"x": GENERATOR.integers(0, 200, (64, 30))},
    ragged: {"x": ROWS},
    tree: {"tokens": ROWS, "parents": PARENTS},
}
# What each model has that int8 reaches, dynamically and with calibration.
DYNAMIC = {
    perceptron: {"MatMul": 1},
    images: {},
    sequence: {"LSTM": 1},
    masked: {"Gather": 1, "LSTM": 9},
    ragged: {"Gather": 1},
    tree: {"Gather": 1},
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The files, each made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def path_of(build):
        if build not in made:
            keras.utils.set_random_seed(1)
            made[build] = folder / f"{build.__name__}.onnx"
            model = onnx_runs.random_weights(build())
            for weight in model.weights:
                weight.assign(weight / 2)
            export_onnx(model, made[build], verify=False, verbose=False)
        return made[build]

    return path_of


CHANGES = {
    "dynamic": (INT8, lambda path, data: quantize(path, inputs=data)),
    "static": (INT8, lambda path, data: quantize(path, calibration=data)),
    "int8 weights": (INT8, lambda path, data: quantize(path, weights_only=True, inputs=data)),
    "float16": (HALF, lambda path, data: to_float16(path, inputs=data)),
    "float16 weights": (HALF, lambda path, data: to_float16(path, weights_only=True, inputs=data)),
    "optimized": (SAME, lambda path, data: optimize(path, inputs=data)),
}


@pytest.mark.parametrize("build", DATA, ids=lambda build: build.__name__)
def test_every_change_keeps_the_model_what_it_was(exported, build):
    path, data = exported(build), DATA[build]
    original = onnx.load(path)
    for name, (tolerance, change) in CHANGES.items():
        report = change(path, data)
        model = onnx.load(report.filepath)
        onnx.checker.check_model(model, full_check=True)
        assert model.graph.input == original.graph.input, name
        assert model.graph.output == original.graph.output, name
        kept = {p.key: p.value for p in model.metadata_props}
        assert kept[METADATA_KEY] == {p.key: p.value for p in original.metadata_props}[METADATA_KEY]
        output = report.comparison.outputs[0]
        assert output.elements > 0
        assert output.max_error <= tolerance, (name, output)
        assert worst_pair_of(model) <= LARGEST_SUM, name
        assert report.processors in ("any", None), name
        assert (report.max_error > 0) == ("optimized" not in name and bool(report.changed)), name
        if name == "dynamic":
            assert report.changed.items() >= DYNAMIC[build].items()


def test_drawn_inputs_of_every_shape_run_in_a_quantised_branch(exported):
    """Empty rows and batches take the other ways through the graph."""
    report = quantize(exported(ragged))
    assert report.comparison.samples >= 10
    assert report.max_error < INT8
    masked_report = quantize(exported(masked))
    assert op_counts(onnx.load(masked_report.filepath))["DynamicQuantizeLSTM"] == 9
    session = onnxruntime.InferenceSession(masked_report.filepath)
    blank = session.run(None, {"x": np.zeros((2, 5), "int32")})[0]
    assert np.array_equal(blank, np.zeros((2, 32)))


def test_the_two_directions_of_a_quantised_lstm_stay_apart(exported, tmp_path):
    inputs = keras.Input((None, 40), name="x")
    hidden = keras.layers.Bidirectional(keras.layers.LSTM(32), name="y")(inputs)
    path = tmp_path / "both.onnx"
    export_onnx(onnx_runs.random_weights(keras.Model(inputs, hidden)), path, verify=False)
    report = quantize(path)
    assert report.changed["LSTM"] >= 1
    assert report.notes == ("only onnxruntime has DynamicQuantizeLSTM",)
    assert worst_pair_of(onnx.load(report.filepath)) <= LARGEST_SUM
    assert report.max_error < INT8


def test_weights_that_are_inputs_too_are_changed_and_are_none_any_more(tmp_path):
    path = linear_files.product(tmp_path / "m.onnx", linear_files.weights())
    model = onnx.load(path)
    size = linear_files.SIZE
    model.graph.input.append(onnx_files.tensor("matrix", onnx_files.FLOAT, [size, size]))
    model.ir_version = 3
    onnx.save(model, path)
    for change in (quantize, to_float16, optimize):
        report = change(path)
        assert [value.name for value in onnx.load(report.filepath).graph.input] == ["x"]
        assert report.comparison.samples > 0
    assert quantize(path, weights_only=True).changed == {"MatMul": 1}


def test_weights_in_a_file_of_their_own_are_read_and_counted(tmp_path):
    path = linear_files.product(tmp_path / "m.onnx", linear_files.weights())
    onnx.save(
        onnx.load(path),
        tmp_path / "apart.onnx",
        save_as_external_data=True,
        size_threshold=0,
        location="weights.bin",
    )
    found = compare_files(path, tmp_path / "apart.onnx", timed=False)
    assert found.ok
    sizes = [(tmp_path / name).stat().st_size for name in ("apart.onnx", "weights.bin")]
    assert found.other.size_bytes == sum(sizes)
    assert sizes[1] > 30_000
    assert quantize(tmp_path / "apart.onnx").size_ratio < 0.4


def test_a_file_beyond_one_message_gets_its_weights_apart(tmp_path, monkeypatch):
    path = linear_files.product(tmp_path / "m.onnx", linear_files.weights())
    monkeypatch.setattr(changes, "LARGEST_MESSAGE", 10_000)
    report = to_float16(path, tmp_path / "half.onnx", weights_only=True)
    data = tmp_path / "half.onnx.data"
    assert data.stat().st_size == linear_files.SIZE**2 * 2
    assert report.comparison.other.size_bytes > data.stat().st_size
    assert compare_files(path, tmp_path / "half.onnx", rtol=0.01, timed=False).ok
    # The weights of an older file do not stay beside a newer one that has its own.
    monkeypatch.undo()
    to_float16(path, tmp_path / "half.onnx", weights_only=True)
    assert not data.exists()
