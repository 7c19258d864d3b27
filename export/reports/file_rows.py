"""How two files look beside each other: rows for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from keras_blocks.export.reports.text import size_text

if TYPE_CHECKING:
    from keras_blocks.export.results.files import FileFacts, OutputDifference

_SAME_SPEED = 0.05  # two medians of one program differ by as much


def file_rows(original: FileFacts, other: FileFacts) -> Iterator[tuple[str, ...]]:
    """Size, nodes, times and accuracy of both, and the ratios."""
    sizes = original.size_bytes, other.size_bytes
    yield "size", *map(size_text, sizes), _ratio(*sizes)
    yield "nodes", str(original.nodes), str(other.nodes), ""
    if original.load_seconds is not None and other.load_seconds is not None:
        loads = original.load_seconds, other.load_seconds
        yield "loading", *map(seconds_text, loads), _ratio(*loads)
    for label, seconds in original.run_seconds.items():
        times = seconds, other.run_seconds[label]
        yield label, *map(seconds_text, times), _ratio(*times)
    for output, share in original.accuracy.items():
        yield f"accuracy, {output}", f"{share:.2%}", f"{other.accuracy[output]:.2%}", ""


def difference_rows(outputs: Sequence[OutputDifference]) -> Iterator[tuple[str, ...]]:
    """The errors of each output."""
    for found in outputs:
        agreement = found.argmax_agreement
        yield (
            found.output,
            f"{found.max_error:.1e}",
            f"{found.mean_error:.1e}",
            f"{found.relative_error:.1e}",
            "" if agreement is None else f"{agreement:.1%}",
            "DIFFERS" if found.problem else "",
        )


def op_rows(original: FileFacts, other: FileFacts) -> Iterator[tuple[str, ...]]:
    """The ops whose counts differ."""
    for op in sorted({*original.op_counts, *other.op_counts}):
        counts = original.op_counts.get(op, 0), other.op_counts.get(op, 0)
        if counts[0] != counts[1]:
            yield op, *(str(count) if count else "" for count in counts)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Rows as a plain table, all but the first column set right."""
    made = Table(box=None, pad_edge=False)
    for number, heading in enumerate(headings):
        made.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def names_of(original: FileFacts, other: FileFacts) -> tuple[str, str]:
    """What to call two files: their names, with the folders where the names are the same."""
    short = Path(original.file).name, Path(other.file).name
    return short if short[0] != short[1] else (original.file, other.file)


def verdict_on_speed(ratios: Mapping[str, float]) -> str:
    """Whether runs became faster."""
    if not ratios:
        return "not timed"
    shown = ", ".join(f"{ratio:.2f} times the time at {label}" for label, ratio in ratios.items())
    if max(ratios.values()) <= 1 - _SAME_SPEED:
        return f"faster: {shown}"
    if min(ratios.values()) >= 1 + _SAME_SPEED:
        return f"SLOWER: {shown}"
    if max(abs(ratio - 1) for ratio in ratios.values()) < _SAME_SPEED:
        return f"no faster: {shown}"
    return shown


def seconds_text(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _ratio(before: float, after: float) -> str:
    return f"{after / before:.2f}" if before else ""
