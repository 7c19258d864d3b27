"""The commands that look at ONNX files and change them; none of them needs TensorFlow."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from keras_blocks.cli.options import (
    FAILED,
    FILE,
    NEW_FILE,
    as_json,
    inputs_file,
    report_file,
    show,
    tell_written,
    usage_errors,
)
from keras_blocks.contract import PROCESSORS

_ONNX_FILE = click.argument("onnx_file", type=FILE, metavar="MODEL.onnx")


@click.command()
@_ONNX_FILE
@click.option("--html", type=NEW_FILE, metavar="PAGE.html", help="Write a page with the graph.")
@as_json
def inspect(onnx_file: Path, html: Path | None, as_json: bool) -> None:
    """Show the inputs, outputs, size, ops and proof of any ONNX file.

    With --html also its graph, one box for each Keras layer, on a page that needs no other file.

    \b
    keras-blocks inspect trees.onnx
    keras-blocks inspect trees.onnx --html trees.html
    keras-blocks inspect trees.onnx --json | jq .ops
    """
    from keras_blocks.cli.display import show_inspection
    from keras_blocks.cli.inspection import inspect_file

    facts = inspect_file(onnx_file)
    if html is not None:
        from keras_blocks.export.reports.graph_html import write_graph_page

        write_graph_page(onnx_file, facts, html)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        show_inspection(facts)
        if html is not None:
            tell_written("page", html)


@click.command()
@click.argument("original", type=FILE, metavar="A.onnx")
@click.argument("other", type=FILE, metavar="B.onnx")
@inputs_file
@click.option("--labels", type=FILE, metavar="LABELS.npy", help="What A's first output should be.")
@click.option("--rtol", type=click.FloatRange(0), help="Allowed error, by the largest magnitude.")
@click.option("--atol", type=click.FloatRange(0), help="Allowed absolute error.")
@click.option("--no-timing", is_flag=True, help="Do not time loading and runs.")
@report_file
@as_json
def compare(
    original: Path,
    other: Path,
    inputs: Path | None,
    labels: Path | None,
    rtol: float | None,
    atol: float | None,
    no_timing: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare two ONNX files on the same inputs.

    Shows how far their outputs are apart, and the size, ops and times of both. Inputs and outputs
    belong together by name, or in their order where the names differ. Exits with 1 if the outputs
    differ by more than rounding explains, or by more than --rtol and --atol allow.

    \b
    keras-blocks compare old.onnx new.onnx
    keras-blocks compare trees.onnx trees.int8.onnx --rtol 0.05
    keras-blocks compare a.onnx b.onnx --inputs test.npz --labels test.npy
    """
    from keras_blocks.export import compare_files

    with usage_errors():
        found = compare_files(
            original,
            other,
            inputs=inputs,
            labels=_read_labels(labels),
            rtol=rtol,
            atol=atol,
            timed=not no_timing,
        )
    show(found, as_json, report)
    if not found.ok:
        sys.exit(FAILED)


def _changing(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all changes have."""
    options = (
        _ONNX_FILE,
        click.option(
            "-o", "--output", type=NEW_FILE, help="The file to write; by default beside MODEL."
        ),
        click.option("--overwrite", is_flag=True, help="Let --output be MODEL itself."),
        inputs_file,
        click.option(
            "--labels",
            type=FILE,
            metavar="LABELS.npy",
            help="What the first output should be for --inputs: shows the accuracy.",
        ),
        click.option(
            "--max-error",
            type=click.FloatRange(0),
            metavar="ERROR",
            help="Exit with 1, and write nothing, if an output is off by more.",
        ),
        report_file,
        as_json,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@_changing
@click.option(
    "--calibration",
    type=FILE,
    metavar="DATA.npz|.npy",
    help="Inputs like those to come: fixes the ranges beforehand. Best for convolutions.",
)
@click.option("--weights-only", is_flag=True, help="Store weights in int8, compute in float32.")
@click.option("--op", "ops", multiple=True, metavar="OP", help="Quantise only this op; repeatable.")
@click.option(
    "--target",
    type=click.Choice(list(PROCESSORS)),
    default="any",
    show_default=True,
    help="any: right on every processor. vnni: more exact, for x86 with VNNI alone.",
)
@click.option("--reduce-range", is_flag=True, help="7 bits with --target vnni too.")
def quantize(
    onnx_file: Path,
    output: Path | None,
    labels: Path | None,
    report: Path | None,
    as_json: bool,
    calibration: Path | None,
    ops: tuple[str, ...],
    **options: Any,
) -> None:
    """Make an ONNX file smaller, and mostly faster, with int8.

    Three ways: dynamic, the default; static, with --calibration; and --weights-only, which is as
    fast as before, for every op. The report says what was won in size and time, measured, how far
    the outputs moved, and which processors the file is right on: all, unless --target says
    otherwise. MODEL stays as it is.

    \b
    keras-blocks quantize trees.onnx                   # trees.int8.onnx
    keras-blocks quantize trees.onnx --weights-only -o small.onnx
    keras-blocks quantize photos.onnx --calibration some.npz
    keras-blocks quantize photos.onnx --max-error 0.01 --inputs test.npz
    keras-blocks quantize trees.onnx --target vnni     # if all servers have it
    """
    from keras_blocks.export import quantize as quantize_file

    with usage_errors():
        found = quantize_file(
            onnx_file,
            output,
            calibration=calibration,
            ops=ops or None,
            labels=_read_labels(labels),
            **options,
        )
    show(found, as_json, report)


@click.command()
@_changing
@click.option("--weights-only", is_flag=True, help="Store weights in float16, compute in float32.")
@click.option("--float16-io", is_flag=True, help="Inputs and outputs in float16 too.")
@click.option("--keep-op", "ops", multiple=True, metavar="OP", help="Stays float32; repeatable.")
def float16(
    onnx_file: Path,
    output: Path | None,
    labels: Path | None,
    report: Path | None,
    as_json: bool,
    float16_io: bool,
    ops: tuple[str, ...],
    **options: Any,
) -> None:
    """Halve an ONNX file with float16.

    Graphics cards compute float16 faster; most processors do not, and --weights-only is the better
    choice for them: half the size, the same speed. MODEL stays as it is.

    \b
    keras-blocks float16 trees.onnx                    # trees.float16.onnx
    keras-blocks float16 trees.onnx --weights-only
    keras-blocks float16 trees.onnx --keep-op Softmax --max-error 0.01
    """
    from keras_blocks.export import to_float16

    with usage_errors():
        found = to_float16(
            onnx_file,
            output,
            keep_io_types=not float16_io,
            keep_ops=ops,
            labels=_read_labels(labels),
            **options,
        )
    show(found, as_json, report)


@click.command()
@_changing
@click.option(
    "--level",
    type=click.Choice(["basic", "extended", "all"]),
    default="basic",
    show_default=True,
    help="basic: standard ONNX. extended: for onnxruntime. all: for processors like this one.",
)
def optimize(
    onnx_file: Path,
    output: Path | None,
    labels: Path | None,
    report: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Save the graph as onnxruntime optimises it whenever it loads.

    Mostly loading gains, and other runtimes. MODEL stays as it is.

    \b
    keras-blocks optimize trees.onnx                   # trees.optimized.onnx
    keras-blocks optimize trees.onnx --level all -o here.onnx
    """
    from keras_blocks.export import optimize as optimize_file

    with usage_errors():
        found = optimize_file(onnx_file, output, labels=_read_labels(labels), **options)
    show(found, as_json, report)


def _read_labels(path: Path | None) -> Any:
    if path is None:
        return None
    from keras_blocks.contract.array_files import read_array

    return read_array(path)
