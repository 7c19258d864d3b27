"""Training with progress, and what came of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from batches import Rows
from learner import Learner, Settings
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

JUDGED_AT_ONCE = 256  # sentences; without a gradient larger batches cost no memory worth naming


@dataclass(frozen=True)
class Trained:
    """A trained model, with the weights of the epoch that was best on the dev sentences.

    Args:
        loss: after each epoch.
        dev: the share of dev sentences judged right after each epoch.
        best_epoch: int, counted from 1.
        seconds: of each epoch's learning, without the look at the dev sentences.
    """

    learner: Learner
    loss: list[float]
    dev: list[float]
    best_epoch: int
    seconds: list[float]


def train(
    learner: Learner, learned: Rows, dev: Rows, settings: Settings, title: str, console: Console
) -> Trained:
    """Fits the model while a bar shows how far it is."""
    batches = learned.learning(settings.batch, settings.seed)
    best = keras.callbacks.EarlyStopping(
        "val_root_accuracy", mode="max", patience=settings.patience, restore_best_weights=True
    )
    with ShowProgress(title, len(learned), len(batches), settings, console) as shown:
        # The batches are drawn anew each epoch: nothing is left for Keras to shuffle.
        history = learner.fit(
            batches, validation_data=dev.in_order(JUDGED_AT_ONCE), epochs=settings.epochs,
            verbose=0, shuffle=False, callbacks=[shown, best],
        ).history  # fmt: skip
    accuracy = history["val_root_accuracy"]
    best_epoch = int(np.argmax(accuracy)) + 1
    return Trained(learner, history["loss"], accuracy, best_epoch, shown.seconds)


class ShowProgress(keras.callbacks.Callback):
    """A bar over the batches of an epoch, with trees a second and the last dev accuracy."""

    def __init__(self, title: str, trees: int, steps: int, settings: Settings, console: Console):
        super().__init__()
        self.console, self.trees = console, trees
        self.epochs, self.size, self.steps = settings.epochs, settings.batch, steps
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task(title, total=steps, state="compiling")
        self.title = title
        self.seconds: list[float] = []

    def __enter__(self) -> ShowProgress:
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()
        self.bar.reset(self.task, description=f"{self.title}, epoch {epoch + 1} of {self.epochs}")

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        seen = min((batch + 1) * self.size, self.trees)
        self.elapsed = time.perf_counter() - self.started
        speed = f"{seen / self.elapsed:,.0f} trees/s"
        self.bar.update(self.task, completed=min(batch + 1, self.steps), state=speed)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seconds.append(self.elapsed)
        self.bar.console.print(
            f"{self.title}, epoch {epoch + 1}: loss {logs['loss']:.2f} a tree, dev "
            f"{logs['val_root_accuracy']:.1%}, {self.trees / self.elapsed:,.0f} trees/s, "
            f"{self.elapsed:.1f} s"
        )
