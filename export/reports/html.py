"""Reports as one HTML page, which needs no other file: figures, plots and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from keras_blocks.contract.describe import notes_of
from keras_blocks.export.reports.plots import ErrorRow, error_plot
from keras_blocks.export.reports.text import size_text

if TYPE_CHECKING:
    from keras_blocks.export.reports.report import ExportResult, ParityReport
    from keras_blocks.export.results.checks import Check

_STYLE = """
:root { --page: #fff; --text: #1d2430; --faint: #667085; --line: #d9dee7; --stripe: #f5f7fa;
  --right: #1b7f5c; --wrong: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --page: #12161d; --text: #e6e9ef; --faint: #98a2b3;
  --line: #303846; --stripe: #191f29; --right: #4ecb9d; --wrong: #fb8c5a; } }
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1rem 4rem; background: var(--page);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
.verdict { border-left: 4px solid var(--right); padding: .4rem .8rem; background: var(--stripe);
  white-space: pre-line; overflow-wrap: anywhere; }
.verdict.wrong { border-color: var(--wrong); }
dl { display: flex; flex-wrap: wrap; gap: .8rem 2.2rem; }
dt { color: var(--faint); font-size: .8rem; } dd { margin: 0; font-size: 1.15rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th { text-align: left; color: var(--faint); font-weight: 500; }
th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.wrong td { color: var(--wrong); font-weight: 600; }
p.key { color: var(--faint); font-size: .85rem; } li { overflow-wrap: anywhere; }
"""
_KEY = (
    "The dot is the largest error, the ring the mean, the bar what is allowed; "
    "errors of exactly 0 stand in the column at the left."
)
_NO_LAYERS = (
    "Not measured. <code>verify=&quot;thorough&quot;</code> measures the error of every layer."
)


def proof_page(report: ParityReport) -> str:
    """A proof, or what disproves a file, as one page."""
    return page(f"Proof of {report.filepath}", _proof(report))


def export_page(result: ExportResult) -> str:
    """An exported file and its proof as one page."""
    return page(f"Export of {result.filepath}", [*_file(result), *_proof_of(result)])


def _file(result: ExportResult) -> Iterator[str]:
    nodes = sum(result.op_counts.values())
    facts = {"size": size_text(result.size_bytes), "opset": result.opset_version, "nodes": nodes}
    facts["loads in"] = result.loads_in
    yield figures(facts)
    yield "<h2>Inputs and outputs</h2>"
    sides = (("input", result.contract.inputs), ("output", result.contract.outputs))
    yield table(
        ("", "name", "dtype", "shape", "notes"),
        [
            (side, spec.name, spec.dtype, _shape(spec.shape), notes_of(spec))
            for side, specs in sides
            for spec in specs
        ],
    )
    ordered = sorted(result.op_counts.items(), key=lambda item: (-item[1], item[0]))
    ops = ", ".join(f"{op} {count}" for op, count in ordered)
    yield f"<h2>Operations</h2><p>{escape(ops)}</p>"


def _proof_of(result: ExportResult) -> Iterator[str]:
    yield "<h2>Proof</h2>"
    if result.parity is None:
        yield "<p>Not proven: the proof was switched off.</p>"
    else:
        yield from _proof(result.parity)


def _proof(report: ParityReport) -> Iterator[str]:
    kind = "verdict" if report.ok else "verdict wrong"
    yield f'<p class="{kind}">{escape(report.verdict())}</p>'
    agreements = [c.argmax_agreement for c in report.checks if c.argmax_agreement is not None]
    yield figures(
        {
            "samples": report.samples,
            "worst error": f"{report.max_error:.2g}",
            "worst relative error": f"{_largest(c.relative_error for c in report.checks):.2g}",
            "same argmax": f"{min(agreements):.1%}" if agreements else "no vectors",
            "level": report.level,
            "seed": "given inputs" if report.seed is None else report.seed,
            "seconds": f"{report.seconds:.1f}",
        }
    )
    yield from _by_shape(report.checks)
    yield from _by_layer(report)
    if report.remarks():
        items = "".join(f"<li>{escape(text)}</li>" for text in report.remarks())
        yield f"<h2>Remarks</h2><ul>{items}</ul>"
    if report.checks:
        yield "<h2>All checks</h2>"
        yield table(*_checks(report.checks), numbers=range(3, 8), wrong=_wrong(report.checks))
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f'<p class="key">{escape(versions)}</p>'


def _by_shape(checks: Sequence[Check]) -> Iterator[str]:
    outputs = list(dict.fromkeys(check.output for check in checks))
    for output in outputs:
        of = f" of output {escape(output)}" if len(outputs) > 1 else ""
        yield f"<h2>Error by shape{of}</h2>"
        rows = [
            ErrorRow(c.sample, c.max_error, c.tolerance, c.mean_error, c.ok)
            for c in checks
            if c.output == output
        ]
        yield error_plot(rows, "absolute error") + f'<p class="key">{_KEY}</p>'


def _by_layer(report: ParityReport) -> Iterator[str]:
    yield "<h2>Error by layer</h2>"
    if not report.layers:
        yield f'<p class="key">{_NO_LAYERS}</p>'
        return
    rows = [
        ErrorRow(f"{check.name} ({check.kind})", check.max_error, check.tolerance, ok=check.ok)
        for check in report.layers
    ]
    yield error_plot(rows, "absolute error of what the layer gives, first to last")


def _checks(checks: Iterable[Check]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    headings = ("sample", "output", "shape", "max", "mean", "relative", "allowed", "argmax", "")
    rows = [
        (
            check.sample,
            check.output,
            _shape(check.shape),
            f"{check.max_error:.1e}",
            f"{check.mean_error:.1e}",
            f"{check.relative_error:.1e}",
            f"{check.tolerance:.1e}",
            "" if check.argmax_agreement is None else f"{check.argmax_agreement:.1%}",
            check.problem or "ok",
        )
        for check in checks
    ]
    return headings, rows


def _wrong(checks: Sequence[Check]) -> set[int]:
    return {number for number, check in enumerate(checks) if not check.ok}


def figures(facts: dict[str, Any]) -> str:
    """A few numbers, large."""
    pairs = (f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items())
    return f"<dl>{''.join(pairs)}</dl>"


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numbers: Iterable[int] = (),
    wrong: Iterable[int] = (),
) -> str:
    """A table; `numbers` are the columns that are set right, `wrong` the rows in another colour."""
    kinds = [' class="number"' if column in set(numbers) else "" for column in range(len(headings))]
    marked = set(wrong)
    head = "".join(f"<th{k}>{escape(text)}</th>" for k, text in zip(kinds, headings, strict=True))
    body = "".join(
        f"<tr{' class=wrong' if number in marked else ''}>"
        + "".join(f"<td{k}>{escape(str(cell))}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for number, row in enumerate(rows)
    )
    rows_of_all = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{rows_of_all}</table></div>'


def _shape(shape: Iterable[Any]) -> str:
    return f"({', '.join(map(str, shape))})"


def _largest(values: Iterable[float]) -> float:
    return max(values, default=0.0)


def page(title: str, parts: Iterable[str]) -> str:
    """The page of these parts, which are HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>"
    )
