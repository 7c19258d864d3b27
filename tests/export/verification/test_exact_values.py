"""Where the file and Keras differ, float64 tells which of them is right."""

import keras
import numpy as np
import tensorflow as tf
from onnx_runs import function_model, images, random_weights

from keras_blocks.export import check_parity, export_onnx
from keras_blocks.export.signature.signature import signature_of
from keras_blocks.export.verification.exact_values import exact_outputs
from keras_blocks.export.verification.keras_side import KerasRunner


def test_a_network_is_computed_in_float64(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(),
            layers.Resizing(5, 5),
            layers.Flatten(),
            layers.Dense(2, "tanh"),
        ]
    )
    random_weights(model)
    x = images(2, 8, 8, 3).numpy()
    expected = model(x).numpy()
    (exact,) = exact_outputs(signature_of(model), [x], [expected.astype("float64")])
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    assert np.abs(exact - exact.astype("float32")).max() > 0


def test_what_has_no_float64_form_is_not_judged():
    model = function_model(lambda x: tf.quantization.fake_quant_with_min_max_args(x), (4,))
    x = images(2, 4).numpy()
    assert exact_outputs(signature_of(model), [x], [x]) is None


def test_a_file_that_is_right_where_keras_is_not_passes_with_a_note(tmp_path, monkeypatch):
    model = function_model(tf.tanh, (4,))
    result = export_onnx(model, tmp_path / "m.onnx", verify=False)
    run = KerasRunner.run

    def rounded(side, feed, eager=False):
        return [np.round(value, 3) for value in run(side, feed, eager)]

    monkeypatch.setattr(KerasRunner, "run", rounded)
    report = check_parity(model, result.filepath, verify="fast")
    assert report.ok
    assert any("Keras rounds more than the file" in note for note in report.notes)


def test_a_file_that_is_wrong_is_no_better_for_it(tmp_path):
    wrong = export_onnx(function_model(tf.sin, (4,)), tmp_path / "m.onnx", verify=False)
    assert not check_parity(function_model(tf.tanh, (4,)), wrong.filepath, verify="fast").ok
