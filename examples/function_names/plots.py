"""What the models learned, as pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")  # Files only: there may be no screen.
import matplotlib.pyplot as plt
import numpy as np

COLOURS = {"majority": "#9aa0a6", "bag": "#c58a1a", "tree": "#2a7f62", "sequence": "#3b6fb6"}
DOTS_PER_INCH = 120


def accuracy_bars(accuracies: dict[str, float], functions: int, path: Path) -> None:
    """One bar a model, the majority class first."""
    figure, axes = plt.subplots(figsize=(7, 0.7 * len(accuracies) + 1.4), layout="constrained")
    names = list(accuracies)
    shares = [100 * accuracies[name] for name in names]
    bars = axes.barh(names, shares, color=[COLOURS[name] for name in names], height=0.65)
    axes.bar_label(bars, [f"{share:.1f}%" for share in shares], padding=4)
    axes.invert_yaxis()
    axes.set(
        xlabel="correct verbs (%)",
        xlim=(0, 1.15 * max(shares)),
        title=f"{functions} functions of modules that no model was trained on",
    )
    _plain(axes)
    _save(figure, path)


def learning_curves(histories: dict[str, dict[str, list[float]]], path: Path) -> None:
    """The accuracy after each epoch: solid on the validation modules, dashed in training."""
    figure, axes = plt.subplots(
        1, len(histories), figsize=(3.6 * len(histories), 3.4), sharey=True, layout="constrained"
    )
    for axis, (name, curves) in zip(np.atleast_1d(axes), histories.items(), strict=True):
        epochs = range(1, len(curves["valid"]) + 1)
        axis.plot(
            epochs, np.multiply(100, curves["valid"]), color=COLOURS[name], label="validation"
        )
        axis.plot(
            epochs, np.multiply(100, curves["train"]), "--", color=COLOURS[name], label="training"
        )
        axis.set(title=name, xlabel="epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False, loc="upper left")
        _plain(axis)
    np.atleast_1d(axes)[0].set_ylabel("correct verbs (%)")
    _save(figure, path)


def confusion_matrix(
    truth: np.ndarray, guesses: np.ndarray, verbs: list[str], name: str, path: Path
) -> None:
    """How often each verb was taken for each other; colours are shares of a row."""
    counts = np.zeros((len(verbs), len(verbs)), int)
    np.add.at(counts, (truth, guesses), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 0.42 * len(verbs) + 2.2
    figure, axes = plt.subplots(figsize=(size, size), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "#333333"
        axes.text(
            column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8
        )
    axes.set_xticks(range(len(verbs)), verbs, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(verbs)), verbs)
    axes.set(
        xlabel=f"what the {name} model says",
        ylabel="the verb in the source",
        title="Test functions",
    )
    axes.tick_params(length=0)
    _save(figure, path)


def _plain(axes: plt.Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=DOTS_PER_INCH)
    plt.close(figure)
