"""Two files beside each other as one HTML page, which needs no other file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from keras_blocks.export.reports.file_rows import difference_rows, file_rows, names_of, op_rows
from keras_blocks.export.reports.html import page, table

if TYPE_CHECKING:
    from keras_blocks.export.reports.file_report import FileComparison


def comparison_page(
    found: FileComparison, title: str, verdict: str, more: Sequence[str] = ()
) -> str:
    """A page of two files.

    Args:
        found: how they compare.
        title: str, what is compared or was done.
        verdict: str, what came of it, in a sentence or two.
        more: further sentences.
    """
    return page(title, _parts(found, verdict, more))


def _parts(found: FileComparison, verdict: str, more: Sequence[str]) -> Iterator[str]:
    yield f'<p class="verdict{"" if found.ok else " wrong"}">{escape(verdict)}</p>'
    names = names_of(found.original, found.other)
    rows = list(file_rows(found.original, found.other))
    yield f"<h2>Files</h2>{table(('', *names, 'ratio'), rows, numbers=(1, 2, 3))}"
    if found.outputs:
        headings = ("output", "max error", "mean error", "relative", "same argmax", "")
        wrong = [number for number, output in enumerate(found.outputs) if output.problem]
        rows = list(difference_rows(found.outputs))
        yield f"<h2>Outputs</h2>{table(headings, rows, numbers=range(1, 5), wrong=wrong)}"
    ops = list(op_rows(found.original, found.other))
    if ops:
        yield f"<h2>Ops that differ</h2>{table(('op', *names), ops, numbers=(1, 2))}"
    yield "".join(f"<p>{escape(text)}</p>" for text in more)
