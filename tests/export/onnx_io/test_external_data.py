"""Weights in a file of their own beside the graph: proven, served, and never half there."""

import os

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx_runs import random_weights, sequences

from keras_blocks.errors import ParityError
from keras_blocks.export import check_parity, export_onnx
from keras_blocks.export import pipeline as exporting
from keras_blocks.export.conversion import capture
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.serving import Model

layers = keras.layers


def model_of(seed=0):
    x = keras.Input((None, 6), name="x")
    h = layers.LSTM(32, return_sequences=True)(layers.Conv1D(24, 3, padding="same")(x))
    h = layers.LayerNormalization()(layers.MultiHeadAttention(2, 8)(h, h))
    return random_weights(keras.Model(x, layers.Dense(40, name="y")(h)), seed)


def result_of(path):
    session = onnxruntime.InferenceSession(path)
    return session.run(None, {"x": sequences(2, 5).numpy()})[0]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_weights_lie_beside_the_graph_and_both_are_proven(tmp_path):
    path, model = tmp_path / "m.onnx", model_of()
    result = export_onnx(model, path, external_data=True, verify="fast")
    assert result.parity.ok
    assert names_in(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert result.size_bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert path.stat().st_size < sum(w.numpy().nbytes for w in model.weights) / 2
    np.testing.assert_allclose(result_of(path), model(sequences(2, 5)), atol=2e-5)
    onnx.checker.check_model(path, full_check=True)
    assert check_parity(model, path).ok


def test_small_weights_leave_no_empty_file_beside_the_graph(tmp_path):
    x = keras.Input((3,))
    export_onnx(model_of(), tmp_path / "m.onnx", external_data=True, verify=False)
    small = keras.Model(x, keras.layers.Dense(2)(x))
    result = export_onnx(small, tmp_path / "m.onnx", external_data=True, verify="fast")
    assert result.parity.ok
    assert names_in(tmp_path) == ["m.onnx"], "nor the weights of the model that was there"


def test_the_pair_is_served(tmp_path):
    path, model = tmp_path / "models" / "m" / "1" / "model.onnx", model_of()
    export_onnx(model, path, external_data=True, verify=False)
    answer = Model.load(path).predict({"x": sequences(2, 5).numpy()})
    np.testing.assert_allclose(answer["y"], model(sequences(2, 5)), atol=2e-5)


def test_the_same_model_gives_the_same_bytes_twice(tmp_path):
    model, contents = model_of(), []
    for _ in range(2):
        export_onnx(model, tmp_path / "m.onnx", external_data=True, verify=False)
        contents.append([path.read_bytes() for path in sorted(tmp_path.iterdir())])
    assert contents[0] == contents[1]


def test_one_file_takes_the_place_of_a_pair_and_a_pair_that_of_one_file(tmp_path):
    path = tmp_path / "m.onnx"
    (tmp_path / "other.data").write_bytes(b"not ours")
    for external, names in ((True, ["m.onnx", "m.onnx.data"]), (False, ["m.onnx"])) * 2:
        model = model_of(seed=external)
        export_onnx(model, path, external_data=external, verify=False)
        assert names_in(tmp_path) == [*names, "other.data"]
        np.testing.assert_allclose(result_of(path), model(sequences(2, 5)), atol=2e-5)


def test_data_that_is_not_of_the_older_model_stays(tmp_path):
    path = tmp_path / "m.onnx"
    export_onnx(model_of(), path, verify=False)
    (tmp_path / "m.onnx.data").write_bytes(b"somebody's")
    export_onnx(model_of(), path, verify=False)
    assert (tmp_path / "m.onnx.data").read_bytes() == b"somebody's"


def test_a_pair_that_is_wrong_is_not_left_and_the_older_one_survives(tmp_path, monkeypatch):
    path, model = tmp_path / "m.onnx", model_of()
    export_onnx(model, path, external_data=True, verify=False)
    before = [file.read_bytes() for file in sorted(tmp_path.iterdir())]

    def other(_, *arguments):
        return to_onnx(model_of(seed=1), *arguments)

    monkeypatch.setattr(exporting, "to_onnx", other)
    with pytest.raises(ParityError):
        export_onnx(model, path, external_data=True, verify="fast")
    assert [file.read_bytes() for file in sorted(tmp_path.iterdir())] == before


def test_an_interruption_between_the_two_files_leaves_no_wrong_pair(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    export_onnx(model_of(), path, external_data=True, verify=False)
    replace = os.replace

    def interrupted(source, target):
        replace(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(model_of(seed=1), path, external_data=True, verify=False)
    assert names_in(tmp_path) == ["m.onnx.data"], "weights without a graph harm nobody"


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "verify_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(model_of(), tmp_path / "m.onnx", external_data=True)
    assert not names_in(tmp_path)


def test_large_weights_never_enter_the_graph(tmp_path, monkeypatch):
    """What a model beyond 2 GB does, here with lower bounds."""
    monkeypatch.setattr(capture, "_LARGEST_WHOLE", 1000)
    monkeypatch.setattr(capture, "_SMALLEST_APART", 2000)
    path, model = tmp_path / "m.onnx", model_of()
    result = export_onnx(model, path, verify="fast")
    assert result.parity.ok
    assert names_in(tmp_path) == ["m.onnx", "m.onnx.data"]
    # The kernel of the convolution was folded with the Transpose that ONNX wants before it.
    assert (
        "Transpose"
        not in {node.op_type for node in onnx.load(path).graph.node if "conv1d" in node.name}
        or result.op_counts["Conv"] == 1
    )
    np.testing.assert_allclose(result_of(path), model(sequences(2, 5)), atol=2e-5)


def test_large_weights_in_half_precision_are_stored_in_it(tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "_LARGEST_WHOLE", 1000)
    monkeypatch.setattr(capture, "_SMALLEST_APART", 1000)
    x = keras.Input((16,), name="x")
    model = keras.Model(x, layers.Dense(64, dtype="mixed_float16", use_bias=False)(x))
    result = export_onnx(model, tmp_path / "m.onnx", verify="fast")
    assert result.parity.ok
    assert (tmp_path / "m.onnx.data").stat().st_size == 16 * 64 * 2
