"""Files that are right at first, and not with other data before or with several threads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper

from keras_blocks.contract.sampling.samples import draw_samples
from keras_blocks.errors import ParityError
from keras_blocks.export import check_parity, export_onnx
from keras_blocks.export.verification import parity
from keras_blocks.export.verification.comparisons import VerificationRun
from keras_blocks.export.verification.effort import USUAL
from keras_blocks.export.verification.padding import proven_signature
from keras_blocks.export.verification.stages import order as examination
from keras_blocks.export.verification.stages import races
from keras_blocks.export.verification.stages import repeated_runs as repeats
from keras_blocks.export.verification.stages.repeated_runs import run_again, run_with_threads
from keras_blocks.runtime.runner import OnnxRunner

PLACES, VALUES, FEATURES = 500, 50, 16


class Forgetful(OnnxRunner):
    """Right until it has seen more than `right` runs; then a place keeps what was there before."""

    right = 4

    def __init__(self, filepath: Path):
        super().__init__(filepath)
        self.runs = 0

    def run(self, feed, outputs=None):
        found = super().run(feed, outputs)
        self.runs += 1
        if self.runs > self.right:
            for value in found.values():
                value[..., -1] += 0.1
        return found


@pytest.mark.parametrize("side", [OnnxRunner, Forgetful])
def test_outputs_that_change_after_other_inputs_are_caught(side, tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="y")(x))
    export_onnx(model, tmp_path / "model.onnx", verify=False)
    signature = proven_signature(model)
    proof, onnx_side = VerificationRun(model, signature), side(tmp_path / "model.onnx")
    samples = list(draw_samples(signature.contract))[: Forgetful.right]
    proof.run(onnx_side, samples)
    assert proof.failed is None
    steady = run_again(proof, onnx_side)
    assert steady == (proof.failed is None) == (side is OnnxRunner)
    assert [check.sample.endswith("once more") for check in proof.checks[-3:]] == [True] * 3
    if side is Forgetful:
        assert "run once more, the file gives other values" in proof.checks[-1].problem


def test_a_file_that_is_not_steady_is_told_as_such(tmp_path, monkeypatch):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="y")(x))
    export_onnx(model, tmp_path / "model.onnx", verify=False)
    monkeypatch.setattr(parity, "OnnxRunner", Forgetful)
    monkeypatch.setattr(Forgetful, "right", 13)
    with pytest.raises(ParityError, match="memory that it never wrote"):
        check_parity(model, tmp_path / "model.onnx").raise_if_wrong()


class SumsInPlaces(keras.layers.Layer):
    """y[p] = the sum of the values whose place is p."""

    def call(self, values, places):
        return tf.scatter_nd(places[:, tf.newaxis], values, [PLACES, FEATURES])


def sums_model() -> keras.Model:
    values = keras.Input((FEATURES,), name="values")
    places = keras.Input((), dtype="int32", name="places")
    return keras.Model([values, places], SumsInPlaces(name="sums")(values, places), name="adder")


def some_values() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "values": generator.normal(size=(VALUES, FEATURES)).astype("float32"),
        "places": generator.integers(0, PLACES, VALUES).astype("int32"),
    }


def racing(file: onnx.ModelProto) -> onnx.ModelProto:
    """The sums by ScatterND, whose threads write to the same places."""
    zeros = numpy_helper.from_array(np.zeros((PLACES, FEATURES), "float32"), "zeros")
    del file.graph.node[:], file.graph.initializer[:]
    file.graph.initializer.extend([zeros, numpy_helper.from_array(np.array([1]), "axis")])
    file.graph.node.extend(
        [
            helper.make_node("Cast", ["places"], ["long"], "adder/Cast", to=TensorProto.INT64),
            helper.make_node("Unsqueeze", ["long", "axis"], ["rows"], "adder/Unsqueeze"),
            helper.make_node(
                "ScatterND", ["zeros", "rows", "values"], ["added"], "adder/sums/ScatterND",
                reduction="add",
            ),
            helper.make_node("Identity", ["added"], [file.graph.output[0].name], "adder/Identity"),
        ]
    )  # fmt: skip
    return file


def racing_model(folder: Path) -> tuple[keras.Model, Path]:
    model, path = sums_model(), folder / "model.onnx"
    export_onnx(model, path, verify=False)
    onnx.save(racing(onnx.load(path)), path)
    return model, path


def test_values_for_one_place_that_threads_may_lose_are_caught_before_any_is_lost(tmp_path):
    model, path = racing_model(tmp_path)
    apart = {**some_values(), "places": np.arange(VALUES, dtype="int32")}
    assert check_parity(model, path, inputs=apart).ok
    twice = {**apart, "places": apart["places"] // 2}
    report = check_parity(model, path, inputs=twice)
    assert report.first_difference.layer == "sums"
    with pytest.raises(ParityError, match=r"ScatterND\)\. Its threads write to the same places"):
        report.raise_if_wrong()


class Racing(OnnxRunner):
    """With several threads, the sums of every third run lack what one value adds."""

    def __init__(self, model, threads=None):
        super().__init__(model, threads)
        self.threads, self.runs = threads, 0

    def run(self, feed, outputs=None):
        found = super().run(feed, outputs)
        self.runs += 1
        if self.threads != 1 and self.runs % 3 == 0:
            for name in {"added", "sums"} & set(found):
                found[name][0, 0] += 1.0
        return found


def test_a_race_that_shows_is_caught_and_its_operation_is_named(tmp_path, monkeypatch):
    # When threads meet is chance, and on a busy machine rare.
    monkeypatch.setattr(examination, "run_scatters", lambda *_: None)
    monkeypatch.setattr(repeats, "OnnxRunner", Racing)
    monkeypatch.setattr(races, "OnnxRunner", Racing)
    model, path = racing_model(tmp_path)
    report = check_parity(model, path, inputs=some_values(), verify="thorough")
    assert not report.ok
    assert "runs differ, with one thread all is right" in report.failure_text()
    assert "threads the file is not the same in every run. It begins" in report.failure_text()
    assert report.first_difference.layer == "sums"


def test_large_samples_are_drawn_and_run_by_several_threads(tmp_path, monkeypatch):
    monkeypatch.setattr(repeats, "MOST_ROWS", 128)
    patient = replace(USUAL, seconds=60.0)
    model, path = sums_model(), tmp_path / "model.onnx"
    export_onnx(model, path, verify=False)
    signature = proven_signature(model)
    proof = VerificationRun(model, signature)
    proof.run(OnnxRunner(path), draw_samples(signature.contract))
    assert run_with_threads(proof, path, signature.contract, patient, seed=0) is None
    timed = [check for check in proof.checks if not check.fixed]
    assert [(check.input_shapes["values"][0], check.again) for check in timed] == [
        (32, False),
        (128, True),
        (128, True),
    ]
    threads = [check.sample.rpartition(", ")[2] for check in timed if check.again]
    assert threads == [f"{patient.repeats + 1} runs with {n} threads" for n in (2, 4)]
