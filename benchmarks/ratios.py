"""Races as text and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")  # Files only: there may be no screen.
import matplotlib.pyplot as plt
from harness import Race, describe, markdown_table, milliseconds

# The goals: no block more than 10% slower than its twin; ragged rows of unequal lengths one and a
# half times as fast; the special exports twice as fast.
SLOWEST_ALLOWED, FAST_RAGGED, FAST_ENOUGH = 1.10, 0.67, 0.50
CONTESTS = {"train": "training step", "infer": "inference", "exported": "ONNX file"}
GOOD, BAD = "#2a7f62", "#b6423b"

Rows = dict[str, dict[str, Race | str]]
"""For each pair its races by contest, or why there was no race."""


def line(name: str, races: dict[str, Race | str]) -> str:
    """One pair, as it finishes."""
    return f"{name:<29}" + "   ".join(f"{CONTESTS[c]} {_short(r)}" for c, r in races.items())


def report(rows: Rows, facts: dict[str, Any], runs: int) -> str:
    """The tables in Markdown, and how the goals were met."""
    blocks, special = _halves(rows)
    parts = ["# Blocks beside their stock Keras twins\n", describe(facts) + "\n", _how(runs)]
    if blocks:
        parts += ["## Every block\n", _table(blocks)]
    if special:
        parts += [
            "## Exported GRU and LSTM\n",
            "Batch 32, 100 steps, an embedding of 1000 words in 64 dimensions, then the layer with "
            "the hidden size at the end of the name. Stock Keras has no ragged layers: there the "
            "peer takes the same rows padded and masked. The stock exporter makes a native op of "
            "an unmasked bidirectional LSTM by itself: there is nothing to win there.\n",
            _table(special),
        ]
    parts.append(verdicts(rows) + "\n")
    return "\n".join(parts)


def _how(runs: int) -> str:
    return (
        f"Times are medians of {runs} interleaved runs on one thread. Ratios are our time by the "
        "peer's, the median over neighbouring runs: below 1 we are faster. Keras runs without XLA "
        "on both sides, its default on a CPU. ONNX: our exporter's file of our model against the "
        "file that `model.export(format='onnx')` makes of the twin, in onnxruntime; both are "
        "compared with Keras's answer first.\n"
    )


def _table(rows: Rows) -> str:
    contests = list(next(iter(rows.values())))
    headings = ["block"]
    for contest in contests:
        headings += [f"{CONTESTS[contest]}: ours ms", "peer ms", "ratio (quartiles)"]
    body = [
        [name, *(cell for c in contests for cell in _cells(races[c]))]
        for name, races in rows.items()
    ]
    return markdown_table(headings, body)


def _cells(result: Race | str) -> list[str]:
    if isinstance(result, str):
        return ["", "", result]
    low, high = result.spread
    ratio = f"**{result.ratio:.2f}** ({low:.2f} to {high:.2f})"
    return [milliseconds(result.ours), milliseconds(result.peer), ratio]


def _short(result: Race | str) -> str:
    if isinstance(result, str):
        return result
    return f"{result.ratio:.2f} ({milliseconds(result.ours)} / {milliseconds(result.peer)} ms)"


def verdicts(rows: Rows) -> str:
    """How far the goals were met."""
    blocks, special = _halves(rows)
    unequal = {name: races for name, races in blocks.items() if _is_unequal(name)}
    others = {name: races for name, races in blocks.items() if name not in unequal}
    parts = [_verdict("Blocks", others, SLOWEST_ALLOWED)] if others else []
    parts += [_verdict("Unequal rows", unequal, FAST_RAGGED)] if unequal else []
    parts += [_verdict("Exported GRU and LSTM", special, FAST_ENOUGH)] if special else []
    return "\n".join(parts)


def _halves(rows: Rows) -> tuple[Rows, Rows]:
    """The blocks, and what was raced as an exported file only."""
    blocks = {name: races for name, races in rows.items() if len(races) > 1}
    return blocks, {name: races for name, races in rows.items() if name not in blocks}


def _is_unequal(name: str) -> bool:
    """Whether the rows have a third of the longest's length on average."""
    return name.endswith("unequal")


def _limit(name: str, races: dict[str, Race | str]) -> float:
    """The goal of a pair."""
    if len(races) == 1:
        return FAST_ENOUGH
    return FAST_RAGGED if _is_unequal(name) else SLOWEST_ALLOWED


def _verdict(title: str, rows: Rows, limit: float) -> str:
    results = [(f"{n}, {CONTESTS[c]}", r) for n, races in rows.items() for c, r in races.items()]
    raced = [(name, result) for name, result in results if isinstance(result, Race)]
    missed = [f"{name}: {result.ratio:.2f}" for name, result in raced if result.ratio > limit]
    text = f"{title}: {len(raced) - len(missed)} of {len(raced)} ratios are {limit:.2f} or less"
    text += f"; above it are {'; '.join(missed)}." if missed else "."
    return text + (
        f" {len(results) - len(raced)} had no peer." if len(results) > len(raced) else ""
    )


def plot(rows: Rows, path: Path) -> Path:
    """A dot for each race, left of the line at 1 where we are faster."""
    contests = [c for c in CONTESTS if any(c in races for races in rows.values())]
    height = 0.28 * len(rows) + 1.4
    figure, axes = plt.subplots(
        1, len(contests), figsize=(3.2 * len(contests) + 2, height), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, contest in zip(axes[0], contests, strict=True):
        for place, (name, races) in enumerate(rows.items()):
            if isinstance(result := races.get(contest), Race):
                limit = _limit(name, races)
                colour = GOOD if result.ratio <= limit else BAD
                axis.plot(result.spread, [place, place], color=colour, linewidth=2, alpha=0.5)
                axis.plot(result.ratio, place, "o", color=colour)
        axis.axvline(1, color="#777777", linewidth=1)
        axis.set(xscale="log", title=CONTESTS[contest], xlabel="our time / the peer's")
        axis.set_xticks([0.05, 0.1, 0.2, 0.5, 1, 2], ["1/20", "1/10", "1/5", "1/2", "1", "2"])
        axis.minorticks_off()
        axis.set_xlim(0.02, 2.5)
        axis.grid(axis="x", color="#e5e5e5")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_yticks(range(len(rows)), list(rows))
    axes[0][0].invert_yaxis()
    figure.suptitle(
        "green: the goal is met (10% for blocks, 1.5 times as fast for unequal rows, twice for the "
        "exports)"
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
