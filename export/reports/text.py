"""How reports look in a terminal: plain tables, as wide as it is, from 80 columns on."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from keras_blocks.contract import Contract
from keras_blocks.contract.describe import notes_of

if TYPE_CHECKING:
    from keras_blocks.export.results.checks import Check, LayerCheck, Skipped

NARROWEST, WIDEST = 80, 120
ROOMY = 100  # columns; from here on tables of checks have all they know
FEW_ROWS = 5  # of a brief report
MOST_ROWS = 30  # beyond this a table shows only what differs and the worst row of each output


def signature_table(contract: Contract) -> Table:
    """The inputs and outputs of a model as a table."""
    table = Table("", "name", "dtype", "shape", "notes", box=None, pad_edge=False)
    for side, specs in (("input", contract.inputs), ("output", contract.outputs)):
        for spec in specs:
            table.add_row(side, spec.name, spec.dtype, f"({_joined(spec.shape)})", notes_of(spec))
    return table


def render(parts: Iterable[Any]) -> str:
    """Text and tables as plain text, no line wider than the terminal unless one word is."""
    console = Console(
        file=io.StringIO(), width=width(), color_system=None, highlight=False, markup=False
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def width() -> int:
    """The terminal's columns, within reason; `NARROWEST` where there is none."""
    columns = shutil.get_terminal_size((NARROWEST, 0)).columns
    return min(max(columns, NARROWEST), WIDEST)


def size_text(size: int) -> str:
    """A number of bytes for people."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size} bytes"


def skipped_texts(skipped: Sequence[Skipped]) -> list[str]:
    """One text per reason, with the samples that it holds for."""
    by_reason: dict[str, list[str]] = {}
    for skip in skipped:
        by_reason.setdefault(skip.reason, []).append(skip.sample)
    return [
        f"skipped, for the model refuses them ({reason}): {'; '.join(samples)}"
        for reason, samples in by_reason.items()
    ]


def worst_table(checks: Sequence[Check]) -> Table:
    """The few checks that are furthest off, in few columns."""
    several = len({check.output for check in checks}) > 1
    texts = ("worst samples", "output") if several else ("worst samples",)
    table = _plain(texts, ("max err", "allowed", ""))
    for check in sorted(checks, key=lambda check: (check.ok, -check.max_error))[:FEW_ROWS]:
        table.add_row(
            check.sample,
            *([check.output] if several else []),
            f"{check.max_error:.1e}",
            f"{check.tolerance:.1e}",
            "ok" if check.ok else "WRONG",
        )
    return table


def checks_table(checks: Sequence[Check]) -> Table:
    """The checks as a table: all of them, or those that matter where they are many."""
    roomy = width() >= ROOMY
    several = roomy or len({check.output for check in checks}) > 1
    texts = ("sample", *(["output"] if several else []), *(["shape"] if roomy else []))
    table = _plain(texts, ("max err", "mean", "relative", "allowed", "argmax", ""))
    shown = _shown(checks)
    for check in shown:
        agreement = check.argmax_agreement
        table.add_row(
            check.sample,
            *([check.output] if several else []),
            *([f"({_joined(check.shape)})"] if roomy else []),
            f"{check.max_error:.1e}",
            f"{check.mean_error:.1e}",
            f"{check.relative_error:.1e}",
            f"{check.tolerance:.1e}",
            "" if agreement is None else f"{agreement:.1%}",
            "ok" if check.ok else "WRONG",
        )
    if len(shown) < len(checks):
        table.caption = f"{len(checks) - len(shown)} more checks are equal or differ likewise"
    return table


def layers_table(layers: Sequence[LayerCheck], most: int = MOST_ROWS) -> Table:
    """The errors of the layers as a table: all of them, or the worst where they are many."""
    table = _plain(("layer", "class"), ("max err", "relative", "allowed", ""))
    worst = sorted(layers, key=lambda layer: (layer.ok, -layer.relative_error))[:most]
    kept = {id(layer) for layer in worst}
    for layer in layers:
        if id(layer) in kept:
            table.add_row(
                layer.name,
                layer.kind,
                f"{layer.max_error:.1e}",
                f"{layer.relative_error:.1e}",
                f"{layer.tolerance:.1e}",
                "ok" if layer.ok else "WRONG",
            )
    if len(kept) < len(layers):
        table.caption = f"{len(layers) - len(kept)} more layers, of smaller relative errors"
    return table


def _plain(texts: Iterable[str], figures: Iterable[str]) -> Table:
    """An empty table of columns whose texts are folded, and of figures that never are."""
    table = Table(box=None, pad_edge=False)
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _shown(checks: Sequence[Check]) -> list[Check]:
    if len(checks) <= MOST_ROWS:
        return list(checks)
    wrong = [check for check in checks if not check.ok]
    worst: dict[str, Check] = {}
    for check in checks:
        if check.output not in worst or check.max_error > worst[check.output].max_error:
            worst[check.output] = check
    kept = {id(check) for check in [*worst.values(), *wrong][:MOST_ROWS]}
    return [check for check in checks if id(check) in kept]


def _joined(shape: Iterable[Any]) -> str:
    return ", ".join(map(str, shape))
