"""Training with progress, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from data import BATCH
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Trained:
    """A trained model, with the weights of the epoch that was best on the validation modules.

    Args:
        history: the accuracy after each epoch, of "train" and "valid".
        best_epoch: int, counted from 1.
    """

    model: keras.Model
    history: dict[str, list[float]]
    best_epoch: int
    seconds: float


def train(
    model: keras.Model,
    learning: tf.data.Dataset,
    validation: tf.data.Dataset,
    epochs: int,
    learning_rate: float,
    console: Console,
) -> Trained:
    """Fits the model while a bar shows how far it is."""
    model.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    best = keras.callbacks.EarlyStopping(
        "val_accuracy", mode="max", patience=epochs, restore_best_weights=True
    )
    started = time.perf_counter()
    with ShowProgress(model.name, len(learning), epochs, console) as shown:
        # Both data sets are in memory: nothing would be gained by Keras's own shuffling.
        history = model.fit(
            learning, validation_data=validation, epochs=epochs, verbose=0, shuffle=False,
            callbacks=[best, shown],
        ).history  # fmt: skip
    curves = {"train": history["accuracy"], "valid": history["val_accuracy"]}
    best_epoch = int(np.argmax(curves["valid"])) + 1
    return Trained(model, curves, best_epoch, time.perf_counter() - started)


class ShowProgress(keras.callbacks.Callback):
    """A bar over all batches of all epochs, with functions a second and the last accuracies."""

    def __init__(self, title: str, steps: int, epochs: int, console: Console):
        super().__init__()
        self.bar = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(None),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self.task = self.bar.add_task(title, total=steps * epochs, state="compiling")
        self.epochs = epochs
        self.epoch, self.seen, self.valid = 0, 0, ""

    def __enter__(self) -> ShowProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.epoch, self.started = epoch + 1, time.perf_counter()
        self.seen = 0

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.seen += 1
        rate = self.seen * BATCH / (time.perf_counter() - self.started)
        state = f"epoch {self.epoch}/{self.epochs}  {rate:,.0f} functions/s{self.valid}"
        self.bar.update(self.task, advance=1, state=state)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.valid = f"  valid {logs['val_accuracy']:.1%}"
