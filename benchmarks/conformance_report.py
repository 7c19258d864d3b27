"""What came of the cases: tables for the terminal and for a page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from harness import describe, markdown_table
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

RIGHT, REFUSED, WRONG, BROKEN, CRASHED = "right", "refused", "wrong", "does not load", "crashes"
OUTCOMES = (RIGHT, REFUSED, WRONG, BROKEN, CRASHED)
NO_CASE = "no case"  # Keras itself does not run it
BATCH, SPACE, MIXED = "batch", "space", "mixed"
TITLES = {
    BATCH: "free batch",
    SPACE: "free batch, time and space",
    MIXED: "mixed_float16, free batch",
}
STYLES = {RIGHT: "green", REFUSED: "yellow"}
PREPROCESSING = ("preprocessing", "augmentation")


@dataclass(frozen=True)
class Result:
    """What came of one case in one variant by one exporter.

    Args:
        plain: bool, dense numbers in and out, in float32.
        loops: int, the Loop and Scan nodes of the file.
        seconds: float, of the export and all runs.
    """

    case: str
    group: str
    layer: str
    plain: bool
    variant: str
    exporter: str
    status: str
    reason: str = ""
    loops: int = 0
    seconds: float = 0.0


# The lines below the groups: what the goals are about.
SUMS: dict[str, Callable[[Result], bool]] = {
    "all": lambda result: True,
    "layers of plain numbers": lambda result: result.plain and result.group not in PREPROCESSING,
    "preprocessing of plain numbers": lambda result: result.plain and result.group in PREPROCESSING,
    "strings, lookups, sparse, ragged, quantised": lambda result: not result.plain,
}


def summary(results: Sequence[Result]) -> RenderableType:
    """A table for each exporter and variant."""
    tables = []
    for exporter, variant, rows in _tables(results):
        table = Table(title=f"{exporter}, {TITLES[variant]}")
        for heading in ("group", "cases", *OUTCOMES, "loops"):
            table.add_column(heading, justify="left" if heading == "group" else "right")
        for name, cells in rows:
            table.add_row(name, *cells, end_section=False)
        tables.append(table)
    return Group(*tables)


def troubles(results: Sequence[Result], refused_too: bool = False) -> RenderableType:
    """The faults, one line each, with the reason; equal reasons of a layer are told once."""
    accepted = {RIGHT, NO_CASE} | (set() if refused_too else {REFUSED})
    found = [result for result in results if result.status not in accepted]
    counts = Counter((r.exporter, r.status, r.layer, r.variant, r.reason) for r in found)
    lines = [
        Text.assemble(
            f"{exporter} ",
            (f"{status} ", STYLES.get(status, "red")),
            f"{layer} ({TITLES[variant]}, {count}): {reason}",
        )
        for (exporter, status, layer, variant, reason), count in sorted(counts.items())
    ]
    return Group(*lines)


def markdown(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """The tables as a page; `facts` are `harness.surroundings`."""
    parts = ["# Conformance\n", describe(facts) + "\n", _ABOUT]
    for variant, names, rows in _side_by_side(results):
        parts.append(f"## Right cases: {TITLES[variant]}\n")
        parts.append(markdown_table(["group", *(_NAMES[name] for name in names)], rows))
    for exporter, variant, rows in _tables(results):
        parts.append(f"## {_NAMES[exporter]}: {TITLES[variant]}\n")
        headings = ["group", "cases", *OUTCOMES, "loops"]
        parts.append(markdown_table(headings, [[name, *cells] for name, cells in rows]))
    left = [r for r in results if r.exporter == "ours" and r.status not in (RIGHT, NO_CASE)]
    if left:
        parts += ["## What `export_onnx` leaves\n", _left_table(left)]
    return "\n".join(parts)


def _left_table(left: list[Result]) -> str:
    """The reasons, without what differs from case to case, and the layers that they stop."""
    groups: dict[str, list[Result]] = {}
    for result in left:
        reason = _OF_ONE_CASE.sub("…", result.reason).replace("|", "\\|")
        groups.setdefault(f"{result.status}: {reason}", []).append(result)
    lines = [
        [reason, str(len(group)), ", ".join(sorted({f"`{r.layer}`" for r in group}))]
        for reason, group in sorted(groups.items(), key=lambda item: -len(item[1]))
    ]
    return markdown_table(["outcome and reason", "cases", "layers"], lines)


# Names in quotes, tensors, and shapes.
_OF_ONE_CASE = re.compile(r"<[^>]*>|'[^']*'|\([^()]*(?:None|\d)[^()]*\)|\[[^\]]*\]")
_NAMES = {
    "ours": "`export_onnx`",
    "proven": "`export_onnx` with its proof",
    "stock": '`model.export(format="onnx")`',
    "tf2onnx": "tf2onnx alone",
}
_ABOUT = (
    "Every layer case of Keras's own tests, taken down while those tests run, in a model of its "
    "own with random weights, exported and run under onnxruntime beside Keras at several batch "
    "sizes and lengths. *Right*: all outputs agree in shape, element type and value. *Refused*: "
    "the exporter raises, with the reason, or the file does not take a size, as its contract says. "
    "*Does not load*: onnxruntime loads the file not, or fails to run it. *Loops*: files with a "
    "`Loop` or `Scan`. Cases that Keras itself does not run with these free sizes are left out."
    "\n\n"
    "Written by `python benchmarks/conformance.py --exporter all --markdown docs/conformance.md`.\n"
)


def _tables(
    results: Sequence[Result],
) -> Iterable[tuple[str, str, list[tuple[str, list[str]]]]]:
    exporters = dict.fromkeys(result.exporter for result in results)
    for exporter in exporters:
        for variant in TITLES:
            mine = [
                r
                for r in results
                if (r.exporter, r.variant) == (exporter, variant) and r.status != NO_CASE
            ]
            if mine:
                yield exporter, variant, _rows(mine)


def _side_by_side(
    results: Sequence[Result],
) -> Iterable[tuple[str, list[str], list[list[str]]]]:
    """For each variant that several exporters did: how many cases each got right, by group."""
    for variant in TITLES:
        tables = {e: dict(rows) for e, v, rows in _tables(results) if v == variant}
        if len(tables) > 1:
            groups = next(iter(tables.values()))
            lines = [
                [group, *(_share(table.get(group)) for table in tables.values())]
                for group in groups
            ]
            yield variant, list(tables), lines


def _share(cells: list[str] | None) -> str:
    return "" if cells is None else f"{cells[1] or 0} of {cells[0]}"


def _rows(results: list[Result]) -> list[tuple[str, list[str]]]:
    groups = sorted({result.group for result in results})
    rows = [(group, [r for r in results if r.group == group]) for group in groups]
    rows += [(name, [r for r in results if belongs(r)]) for name, belongs in SUMS.items()]
    return [(name, _cells(part)) for name, part in rows if part]


def _cells(results: list[Result]) -> list[str]:
    counts = Counter(result.status for result in results)
    figures = [len(results), *(counts[outcome] for outcome in OUTCOMES)]
    figures.append(sum(result.loops > 0 for result in results))
    return [str(figure) if figure else "" for figure in figures]
