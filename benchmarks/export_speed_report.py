"""The races of exported files as tables, and how the goals were met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import Timing, describe, markdown_table, milliseconds
from rounds import ratio

OURS, STOCK, TF2ONNX, HAND, TENSORFLOW = "ours", "stock", "tf2onnx", "by hand", "tensorflow"
PROVEN = "ours with proof"
PEERS = (STOCK, TF2ONNX, HAND, TENSORFLOW)
# The goals. Two files that hold the very same nodes differ by this much from run to run.
NOISE = 1.03
BY_HAND = 1.10
EXPORT, EXPORT_PROVEN = 1.5, 3.0

ABOUT = (
    "Times are those of one run, one thread, the contestants in turn; ratios are ours by the "
    "other's, the median over the rounds and in brackets that of the least times: below 1 we are "
    "faster. Every file was compared with Keras first. *Stock* is `model.export(format='onnx')`, "
    "*tf2onnx* plain `tf2onnx.convert.from_function`, *by hand* a graph that someone wrote who "
    "knows the model and onnxruntime, *TensorFlow* a `tf.function` of the model.\n"
)
ABOUT_EXPORTS = (
    "Seconds of an export, the exporters in turn, after a first one of each. *With proof* the "
    "file is run beside the model over many shapes.\n"
)


@dataclass
class Row:
    """A case.

    Args:
        name: str.
        seconds: of each contestant, a figure for each round.
        exports: the same for the exporters.
        absent: the contestants without a right file, and why.
    """

    name: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    exports: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def ratio(self, peer: str) -> float | None:
        """Ours by the peer's, or None where one of them is absent."""
        if OURS not in self.seconds or peer not in self.seconds:
            return None
        return ratio(self.seconds[OURS], self.seconds[peer]).median

    def least_ratio(self, peer: str) -> float:
        """The least time of ours by the least of the peer's."""
        return min(self.seconds[OURS]) / min(self.seconds[peer])

    def best_ratio(self) -> float | None:
        """Ours by the better of the two other exporters', if one of them has a right file."""
        found = [self.ratio(peer) for peer in (STOCK, TF2ONNX)]
        known = [value for value in found if value is not None]
        return max(known) if known else None

    def export_ratio(self, ours: str) -> float | None:
        """The time of our export by the stock exporter's."""
        if ours not in self.exports or STOCK not in self.exports:
            return None
        return ratio(self.exports[ours], self.exports[STOCK]).median


def line(row: Row) -> str:
    """A case, as it finishes."""
    cells = [f"{peer} {_cell(row, peer)}" for peer in PEERS if peer in row.seconds]
    cells += [f"no {peer}: {why[:60]}" for peer, why in row.absent.items()]
    for name, value in ((name, row.export_ratio(name)) for name in (OURS, PROVEN)):
        cells += [] if value is None else [f"export {name} {value:.2f}"]
    own = _time(row, OURS)
    return f"{row.name:<30}{own:>8} ms   " + "   ".join(cells)


def report(rows: Sequence[Row], facts: dict[str, Any]) -> str:
    """The page."""
    parts = ["# Exported files beside those of other exporters\n", describe(facts) + "\n"]
    parts += [ABOUT, "Written by `python benchmarks/export_speed.py --write-docs`.\n"]
    parts += [verdicts(rows), "## Running\n", _running(rows)]
    absent = [(row.name, peer, why) for row in rows for peer, why in row.absent.items()]
    if absent:
        parts.append("\n".join(f"- {name}: no {peer} file: {why}" for name, peer, why in absent))
        parts.append("")
    if any(row.exports for row in rows):
        parts += ["## Exporting\n", ABOUT_EXPORTS, _exporting(rows)]
    return "\n".join(parts)


def verdicts(rows: Sequence[Row]) -> str:
    """How far the goals were met."""
    goals: list[tuple[str, Callable[[Row], float | None], float]] = [
        ("as fast as the best of stock and tf2onnx", Row.best_ratio, NOISE),
        ("within 10% of the graph by hand", lambda row: row.ratio(HAND), BY_HAND),
        ("exported in 1.5 times the stock time", lambda row: row.export_ratio(OURS), EXPORT),
        (
            "exported and proven in 3 times the stock time",
            lambda row: row.export_ratio(PROVEN),
            EXPORT_PROVEN,
        ),
    ]
    lines = []
    for title, value_of, limit in goals:
        values = {row.name: value_of(row) for row in rows}
        known = {name: value for name, value in values.items() if value is not None}
        missed = [f"{name} {value:.2f}" for name, value in known.items() if value > limit]
        if known:
            text = f"- {title}: {len(known) - len(missed)} of {len(known)}"
            lines.append(text + (f"; not {', '.join(missed)}." if missed else "."))
    return "\n".join(lines) + "\n"


def _running(rows: Sequence[Row]) -> str:
    headings = ["case", "ours ms", "ours by stock", "by tf2onnx", "by hand", "by TensorFlow"]
    body = [[row.name, _time(row, OURS), *(_cell(row, peer) for peer in PEERS)] for row in rows]
    return markdown_table(headings, body)


def _exporting(rows: Sequence[Row]) -> str:
    headings = ["case", "ours s", "with proof s", "stock s", "ours by stock", "proven by stock"]
    body = []
    for row in rows:
        times = [row.exports.get(name) for name in (OURS, PROVEN, STOCK)]
        ratios = [row.export_ratio(name) for name in (OURS, PROVEN)]
        body.append(
            [
                row.name,
                *(
                    "" if taken is None else f"{sorted(taken)[len(taken) // 2]:.2f}"
                    for taken in times
                ),
                *("" if value is None else f"**{value:.2f}**" for value in ratios),
            ]
        )
    return markdown_table(headings, body)


def _time(row: Row, name: str) -> str:
    if name not in row.seconds:
        return "none"
    return milliseconds(Timing.of(row.seconds[name]))


def _cell(row: Row, peer: str) -> str:
    value = row.ratio(peer)
    if value is None:
        return "no file" if peer in row.absent else ""
    return f"**{value:.2f}** ({row.least_ratio(peer):.2f})"
