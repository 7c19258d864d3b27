"""Several exports at once, each in a thread of its own, as a server or a notebook may run them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx
from keras_blocks.export.signature.signature import signature_of
from keras_blocks.export.tracing.stand_ins import onnx_node, stand_ins, target_opset
from keras_blocks.export.verification.diagnosis.layer_errors import OpenModel
from keras_blocks.runtime.runner import OnnxRunner

THREADS = 8


def test_eight_threads_export_and_look_into_layers_at_once(tmp_path):
    models = [
        keras.Sequential([keras.Input((None, 3), name="x"), kb.GRU(8), keras.layers.Dense(2)])
        if number % 2
        else keras.Sequential(
            [keras.Input((None, 3), name="x"), kb.GRU(8, return_sequences=True), kb.GRU(8)]
        )
        for number in range(THREADS // 2)
    ]
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    expected = [model(x).numpy() for model in models]
    together = Barrier(THREADS)

    def export(number):
        together.wait()
        # Two threads have the same model.
        model = models[number % len(models)]
        if number < len(models):
            opened = OpenModel(model, signature_of(model), 18)
            assert all(check.ok for check in opened.layer_checks({"x": x}))
        else:
            path = tmp_path / f"{number}.onnx"
            result = export_onnx(model, path, verify="fast", verbose=False)
            assert "GRU" in result.op_counts
            (got,) = OnnxRunner(path).run({"x": x}).values()
            np.testing.assert_allclose(got, expected[number % len(models)], atol=1e-6)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(export, range(THREADS)))


def test_what_is_opened_in_one_thread_is_closed_in_all_others():
    def seen():
        return target_opset()

    with stand_ins(15), ThreadPoolExecutor(1) as pool:
        assert target_opset() == 15
        assert pool.submit(seen).result() != 15
        with stand_ins(17):
            assert target_opset() == 17
        assert target_opset() == 15
    with pytest.raises(ExportError, match="works in an export only"):
        onnx_node("Relu", [tf.zeros(1)], [tf.TensorSpec((1,), "float32")])
