"""Ours: the Tree-LSTM as an exported file, in a `tf.function`, and in `fit`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from one_thread import session_options
from tree_samples import Forest

import keras_blocks as kb
from keras_blocks.export import export_onnx

FEATURES, UNITS = 300, 150
LEARNING_RATE = 1e-3
CELLS = {
    "child-sum": lambda units: kb.ChildSumTreeLSTMCell(units),
    "N-ary": lambda units: kb.NaryTreeLSTMCell(units, arity=2),
}
# Float32 sums in another order, over up to a few dozen levels.
SAME = {"rtol": 1e-3, "atol": 1e-4}


def tree_lstm(cell: str, return_nodes: bool = False) -> keras.Model:
    """The layer alone in a functional model."""
    features = keras.Input((None, FEATURES), ragged=True, name="features")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    layer = kb.TreeRecursive(CELLS[cell](UNITS), return_nodes=return_nodes)
    return keras.Model({"features": features, "parents": parents}, layer([features, parents]))


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights by name; the peers get the same."""
    return {variable.name: variable.numpy() for variable in model.weights}


def ragged(forest: Forest) -> dict[str, tf.RaggedTensor]:
    """The batch as the model takes it."""
    splits = tf.constant(forest.row_splits)
    columns = {"features": forest.features(FEATURES), "parents": forest.parents}
    return {
        name: tf.RaggedTensor.from_row_splits(tf.constant(values), splits)
        for name, values in columns.items()
    }


def targets(forest: Forest) -> np.ndarray:
    """What the roots are trained towards."""
    return np.random.default_rng(2).normal(size=(forest.trees, UNITS)).astype("float32")


def session(model: keras.Model, path: Path) -> onnxruntime.InferenceSession:
    """The exported file, on one thread."""
    export_onnx(model, path, verify=False, verbose=False)
    return onnxruntime.InferenceSession(path, session_options(), providers=["CPUExecutionProvider"])


def feeds(forest: Forest) -> dict[str, np.ndarray]:
    """The batch as the exported file takes it."""
    return {
        "features": forest.features(FEATURES),
        "features.row_splits": forest.row_splits,
        "parents": forest.parents,
        "parents.row_splits": forest.row_splits,
    }


def in_onnxruntime(
    file: onnxruntime.InferenceSession, batches: Sequence[Forest]
) -> Callable[[], Any]:
    """All batches through the file, one after another; the roots are the first output."""
    fed = [feeds(batch) for batch in batches]
    return lambda: [file.run(None, inputs)[0] for inputs in fed]


def in_tensorflow(model: keras.Model, batches: Sequence[Forest]) -> Callable[[], Any]:
    """All batches through the model in a `tf.function`, as `predict` does it."""
    given = [ragged(batch) for batch in batches]
    run = tf.function(
        lambda inputs: model(inputs, training=False),
        jit_compile=False,
        # Else batches of other sizes are traced again.
        input_signature=[{name: _spec(value) for name, value in given[0].items()}],
    )
    return lambda: [run(inputs) for inputs in given]


def _spec(value: tf.RaggedTensor) -> tf.RaggedTensorSpec:
    return tf.RaggedTensorSpec([None, *value.shape[1:]], value.dtype, ragged_rank=1)


class Fit:
    """`model.fit` that stands still until it is given steps to do.

    It runs in a thread of its own. Between two steps a callback waits for its turn, so the time of
    a turn is that of whole turns of the loop in `fit`: the next batch, the step with its update,
    the metrics and what calls the callbacks.
    """

    def __init__(self, model: keras.Model, batch: Forest):
        model.compile(keras.optimizers.Adam(LEARNING_RATE), "mse")
        data = tf.data.Dataset.from_tensors((ragged(batch), targets(batch))).repeat()
        self._turns = _Turns()
        self._thread = threading.Thread(
            target=model.fit,
            args=[data],
            kwargs={
                "steps_per_epoch": 2**31 - 1,
                "shuffle": False,
                "verbose": 0,
                "callbacks": [self._turns],
            },
            daemon=True,
        )
        self._thread.start()
        self(2)  # The first step traces, the second is the first of its kind.

    def __call__(self, calls: int) -> float:
        """The seconds of a step, over so many."""
        self._turns.left = calls
        self._turns.given.release()
        while not self._turns.done.acquire(timeout=1):
            if not self._thread.is_alive():
                raise RuntimeError("fit ended before its time; what it says stands above.")
        return self._turns.seconds / calls

    def close(self) -> None:
        """Ends the training."""
        self._turns.model.stop_training = True
        self._turns.left = 1
        self._turns.given.release()
        self._thread.join()


class _Turns(keras.callbacks.Callback):
    def __init__(self) -> None:
        super().__init__()
        self.given, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.left, self.seconds = 0, 0.0
        self._start: float | None = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self._start is not None:
            self.left -= 1
            if self.left > 0:
                return
            self.seconds = time.perf_counter() - self._start
            self.done.release()
        self.given.acquire()
        self._start = time.perf_counter()
