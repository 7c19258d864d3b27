"""Generation in one file, beside loops in Python over the same step.

    python benchmarks/generation.py
    python benchmarks/generation.py --runs 5 --length 20

It prints the median milliseconds of a batch: of the exported `Generation`, of a loop over
onnxruntime sessions of one step, and of a loop over `predict_on_batch` of one step. All choose the
best symbol, on one thread, and give the same symbols.
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import keras
import numpy as np
import onnxruntime
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export import export_onnx

SYMBOLS, EMBEDDED = 2000, 64
FASTER_THAN_KERAS, FASTER_THAN_SESSIONS = 3.0, 1.0
CELLS = {"GRU": kb.GRUCell, "LSTM": kb.LSTMCell}


def models(cell: str, units: int, length: int) -> tuple[keras.Model, keras.Model]:
    """The whole generation, and one step of it, with the same weights."""
    words = kb.Embedding(SYMBOLS, EMBEDDED)
    step, scores = CELLS[cell](units), kb.Vanilla(SYMBOLS, activation=None)
    start = keras.Input((), dtype="int32", name="symbol")
    parts = [keras.Input((units,), name=f"state_{i}") for i in range(1 + (cell == "LSTM"))]
    whole = keras.Model(
        [start, *parts], kb.Generation(step, words, scores, length)(start, initial_state=parts)
    )
    output, states = step(words(start), parts)
    return whole, keras.Model([start, *parts], [scores(output), *states])


def session_of(model: keras.Model, path: Path) -> onnxruntime.InferenceSession:
    """The exported model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    export_onnx(model, path, verify="fast")
    return onnxruntime.InferenceSession(path, options)


def contestants(
    cell: str, units: int, batch: int, length: int
) -> dict[str, Callable[[], np.ndarray]]:
    """What generates a batch, by its name: each gives (batch, length) symbols."""
    whole, step = models(cell, units, length)
    with tempfile.TemporaryDirectory() as folder:
        file = session_of(whole, Path(folder) / "whole.onnx")
        one = session_of(step, Path(folder) / "step.onnx")
    generator = np.random.default_rng(0)
    start = generator.integers(0, SYMBOLS, batch).astype("int32")
    zeros = [np.zeros((batch, units), "float32") for _ in step.inputs[1:]]
    names = [tensor.name for tensor in one.get_inputs()]

    def loop(run: Callable[[list[np.ndarray]], list[np.ndarray]]) -> np.ndarray:
        symbol, states, rows = start, zeros, []
        for _ in range(length):
            scores, *states = run([symbol, *states])
            symbol = scores.argmax(-1).astype("int32")
            rows.append(symbol)
        return np.stack(rows, axis=1)

    def whole_file() -> np.ndarray:
        feed = dict(zip(names, [start, *zeros], strict=True))
        return file.run(None, feed)[0].reshape(batch, length)

    return {
        "one file": whole_file,
        "sessions": lambda: loop(lambda given: one.run(None, dict(zip(names, given, strict=True)))),
        "predict_on_batch": lambda: loop(step.predict_on_batch),
    }


@click.command()
@click.option("--runs", default=20, show_default=True, help="Of each contestant, in turn.")
@click.option("--length", default=50, show_default=True, help="Symbols of a row.")
def main(runs: int, length: int) -> None:
    """Measure, and say whether the goals are met."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    print(f"onnxruntime {onnxruntime.__version__}, keras {keras.__version__}, {length} symbols")
    print("cell  units  batch  one file  sessions  predict_on_batch  by sessions  by Keras")
    met = True
    for cell, units, batch in [("GRU", 128, 1), ("GRU", 128, 32), ("LSTM", 256, 8)]:
        keras.utils.set_random_seed(0)
        run = contestants(cell, units, batch, length)
        found = {name: generate() for name, generate in run.items()}
        for symbols in found.values():
            np.testing.assert_array_equal(symbols, found["one file"])
        taken: dict[str, list[float]] = {name: [] for name in run}
        for _ in range(runs):
            for name, generate in run.items():
                began = time.perf_counter()
                generate()
                taken[name].append(1e3 * (time.perf_counter() - began))
        ours, sessions, stock = (statistics.median(times) for times in taken.values())
        by_sessions, by_keras = sessions / ours, stock / ours
        print(
            f"{cell:4}  {units:5}  {batch:5}  {ours:8.2f}  {sessions:8.2f}  {stock:16.2f}  "
            f"{by_sessions:11.2f}  {by_keras:8.1f}",
            flush=True,
        )
        met &= by_sessions >= FASTER_THAN_SESSIONS and by_keras >= FASTER_THAN_KERAS
    print("goals met" if met else "GOALS MISSED")


if __name__ == "__main__":
    main()
