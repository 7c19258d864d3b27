"""Plots of errors as inline SVG: one row for each thing, errors on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LABELS, RIGHT = 940, 350, 24  # of the drawing, of the labels, of the margin beside it
TOP, ROW, BOTTOM = 8, 20, 44
ZERO = 46  # the column of errors that are exactly 0, left of the axis
MOST_LABEL = 46  # letters; of longer ones the ends are shown
FEWEST_DECADES = 3

# On white and on black; all else has the colour of the text, more or less faint.
RIGHT_COLOUR, WRONG_COLOUR = "#21916a", "#e2571e"


@dataclass(frozen=True)
class ErrorRow:
    """One row: what was compared, its errors, and the largest that passes; the mean may lack."""

    label: str
    largest: float
    allowed: float
    mean: float | None = None
    ok: bool = True


def error_plot(rows: Sequence[ErrorRow], axis: str) -> str:
    """The rows from top to bottom, as one `<svg>`.

    Args:
        rows: what to draw; at least one.
        axis: str, what stands below the axis.
    """
    scale = _Scale([value for row in rows for value in (row.largest, row.allowed, row.mean or 0.0)])
    height = TOP + ROW * len(rows) + BOTTOM
    bottom = TOP + ROW * len(rows)
    body = [*_grid(scale, bottom, axis)]
    for number, row in enumerate(rows):
        body += _row(row, scale, TOP + ROW * number, striped=number % 2 == 0)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img" aria-label="{escape(axis)}" '
        f'font-family="sans-serif" font-size="12" fill="currentColor">{"".join(body)}</svg>'
    )


class _Scale:
    """Where an error stands: 0 has a column of its own, infinity stands at the right edge."""

    def __init__(self, values: Iterable[float]):
        logs = [math.log10(value) for value in values if value > 0 and math.isfinite(value)]
        self.first = math.floor(min(logs, default=-8.0))
        self.last = max(math.ceil(max(logs, default=0.0)), self.first + FEWEST_DECADES)
        self.left, self.right = LABELS + ZERO, WIDTH - RIGHT

    def x(self, value: float) -> float:
        """The place of an error."""
        if value == 0:
            return LABELS + ZERO / 2
        if not math.isfinite(value):
            return self.right + RIGHT / 2
        share = (math.log10(value) - self.first) / (self.last - self.first)
        return round(self.left + share * (self.right - self.left), 1)

    def decades(self) -> Iterator[int]:
        """The exponents of the axis, no more than fit."""
        step = math.ceil((self.last - self.first) / 10)
        yield from range(self.first, self.last + 1, step)


def _grid(scale: _Scale, bottom: int, axis: str) -> Iterator[str]:
    marks = {"0": scale.x(0.0)} | {f"1e{n}": scale.x(10.0**n) for n in scale.decades()}
    for text, x in marks.items():
        yield (
            f'<line x1="{x}" x2="{x}" y1="{TOP}" y2="{bottom}" '
            f'stroke="currentColor" stroke-opacity=".2"/>'
        )
        yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{text}</text>'
    middle = (scale.left + scale.right) / 2
    yield f'<text x="{middle}" y="{bottom + 36}" text-anchor="middle">{escape(axis)}</text>'


def _row(row: ErrorRow, scale: _Scale, top: int, striped: bool) -> Iterator[str]:
    middle, colour = top + ROW / 2, RIGHT_COLOUR if row.ok else WRONG_COLOUR
    label = _shortened(row.label)
    means = "" if row.mean is None else f", mean {row.mean:.2g}"
    title = f"{row.label}: {row.largest:.2g}{means}, {row.allowed:.2g} is allowed"
    yield f'<g class="{"right" if row.ok else "wrong"}"><title>{escape(title)}</title>'
    if striped:
        yield f'<rect y="{top}" width="{WIDTH}" height="{ROW}" fill-opacity=".05"/>'
    ink = "" if row.ok else f' fill="{WRONG_COLOUR}" font-weight="bold"'
    yield f'<text x="{LABELS - 6}" y="{middle + 4}" text-anchor="end"{ink}>{escape(label)}</text>'
    largest, allowed = scale.x(row.largest), scale.x(row.allowed)
    yield (
        f'<line x1="{allowed}" x2="{allowed}" y1="{middle - 6}" y2="{middle + 6}" '
        f'stroke="currentColor" stroke-width="2"/>'
    )
    if row.mean is not None:
        mean = scale.x(row.mean)
        yield (
            f'<line x1="{mean}" x2="{largest}" y1="{middle}" y2="{middle}" '
            f'stroke="{colour}" stroke-width="2" stroke-opacity=".4"/>'
        )
        yield f'<circle cx="{mean}" cy="{middle}" r="3" fill="none" stroke="{colour}"/>'
    yield f'<circle cx="{largest}" cy="{middle}" r="4.5" fill="{colour}"/></g>'


def _shortened(label: str) -> str:
    half = MOST_LABEL // 2
    return label if len(label) <= MOST_LABEL else f"{label[: half - 1].rstrip()}…{label[-half:]}"
