"""Cost of a node against batch, depth and arity, and memory against nodes, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("agg")  # Files only: there may be no screen.
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from tree_contests import ALL_GATES, BY_LEVEL, LIMIT, OURS, PREPARES, WITH_FEATURES, Contest
from tree_memory import Memory
from tree_report import cost

COLOURS = {OURS: "#2a7f62", LIMIT: "#555555"}
OTHERS = ("#b6423b", "#c98a2b", "#5b6fb0", "#8a5aa3", "#4ba3b5", "#999999")
PANELS = {
    ("inference", "child-sum"): ("inference, child-sum", "trees in a batch"),
    ("inference", "N-ary"): ("inference, binary N-ary", "trees in a batch"),
    ("training", "child-sum"): ("training, child-sum", "trees in a batch"),
    ("depth", "child-sum"): ("25 chains, inference", "depth"),
    ("arity", "child-sum"): ("trees of 93 nodes, inference", "children of an inner node"),
}
UNDRAWN = (ALL_GATES, BY_LEVEL, WITH_FEATURES)


def plot(contests: Sequence[Contest], memories: Sequence[Memory], path: Path) -> Path:
    """Draws what there is; both axes are logarithmic."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    drawn = [c for c in contests if (c.kind, c.cell) in PANELS]
    measured = dict.fromkeys(name for c in drawn for name in c.seconds)
    names = [n for n in measured if n not in UNDRAWN and not n.endswith(PREPARES)]
    colours = {name: COLOURS.get(name, OTHERS[at % len(OTHERS)]) for at, name in enumerate(names)}
    for axis, ((kind, cell), (title, label)) in zip(axes.flat, PANELS.items(), strict=False):
        drawn = [c for c in contests if (c.kind, c.cell) == (kind, cell)]
        for name in dict.fromkeys(n for c in drawn for n in c.seconds if n in colours):
            points = [(c.at, cost(c, name)) for c in drawn if name in c.seconds]
            axis.plot(
                *zip(*points, strict=True),
                "o-",
                color=colours[name],
                label=name,
                linewidth=2.5 if name in COLOURS else 1.2,
                markersize=4,
            )
        places = sorted({c.at for c in drawn})
        axis.set(title=title, xlabel=label, ylabel="microseconds a node")
        if places:
            axis.set(xscale="log", yscale="log")
            axis.set_xticks(places, list(map(str, places)))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("")
    _memory(axes.flat[-1], memories)
    for axis in axes.flat:
        axis.grid(color="#e5e5e5")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    lines = {line.get_label(): line for axis in axes.flat[:-1] for line in axis.get_lines()}
    figure.legend(lines.values(), lines, loc="outside upper center", ncols=7, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _memory(axis: plt.Axes, memories: Sequence[Memory]) -> None:
    for at, memory in enumerate(memories):
        style = "o-" if memory.kind == "file" else "s--"
        label = f"{memory.kind}, {memory.shape}"
        megabytes = [kilobytes / 1024 for kilobytes in memory.kilobytes]
        axis.plot(memory.nodes, megabytes, style, color=OTHERS[at % 3], label=label, markersize=4)
    axis.set(title="memory of a batch", xlabel="nodes", ylabel="MB")
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlim(0)
    axis.set_ylim(0)
    if memories:
        axis.legend(fontsize=8, frameon=False)
