"""The commands that need Keras: `export` a saved model, `check` a file against one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keras_blocks.cli.options import (
    FAILED,
    FILE,
    NEW_FILE,
    as_json,
    inputs_file,
    report_file,
    show,
    usage_errors,
)
from keras_blocks.cli.quiet import silent_stderr
from keras_blocks.cli.user_code import import_code, imported_code
from keras_blocks.errors import ExportError, KerasBlocksError, MissingExtraError, UnreadableError

if TYPE_CHECKING:
    from keras_blocks.export.verification.effort import Verify

_SAVED = click.Path(exists=True, path_type=Path)
_KERAS_FILE = click.argument("model", type=_SAVED, metavar="MODEL.keras")
_LEVEL = click.option(
    "--proof",
    type=click.Choice(["fast", "usual", "thorough"]),
    default="usual",
    show_default=True,
    help="How much is tried: a few shapes, all, or all of it twice and every layer.",
)
_BUDGET = click.option(
    "--time-budget",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="Begin nothing more of the proof after this.",
)
_SIGNATURE = click.option(
    "--signature",
    "signature_key",
    metavar="NAME",
    help="Which signature of a SavedModel; by default that for serving, or the only one.",
)


@click.command()
@_KERAS_FILE
@click.option("-o", "--output", type=NEW_FILE, required=True, help="The ONNX file to write.")
@click.option("--opset", type=int, help="ONNX opset version; by default the lowest at no cost.")
@click.option("--no-verify", is_flag=True, help="Do not prove that the file equals the model.")
@click.option("--external-data", is_flag=True, help="Write the weights beside the file.")
@_LEVEL
@_BUDGET
@_SIGNATURE
@imported_code
@report_file
@as_json
def export(
    model: Path,
    output: Path,
    opset: int | None,
    no_verify: bool,
    external_data: bool,
    proof: Verify,
    time_budget: float | None,
    signature_key: str | None,
    code: tuple[str, ...],
    report: Path | None,
    as_json: bool,
) -> None:
    """Write a saved Keras model, or a SavedModel folder, as a proven ONNX file.

    The proof: both compute the same on inputs of many shapes. A file that differs from the model
    is not left under the asked name, and the exit code is 1.

    \b
    keras-blocks export trees.keras -o trees.onnx
    keras-blocks export trees.keras -o trees.onnx --report proof.html
    keras-blocks export trees.keras -o trees.onnx --json | jq .parity.max_error
    keras-blocks export own.keras -o own.onnx --import my_layers.py
    """
    keras_model = _load_keras(model, signature_key, code, quiet=as_json)
    from keras_blocks.export import export_onnx

    with usage_errors():
        result = export_onnx(
            keras_model,
            output,
            opset_version=opset,
            verify=False if no_verify else proof,
            time_budget=time_budget,
            external_data=external_data,
            verbose=False if as_json else None,
        )
    show(result, as_json, report)


@click.command()
@_KERAS_FILE
@click.argument("onnx_file", type=FILE, metavar="MODEL.onnx")
@_LEVEL
@_BUDGET
@click.option("--rtol", type=click.FloatRange(0), help="Allowed error, by the largest magnitude.")
@click.option("--atol", type=click.FloatRange(0), help="Allowed absolute error.")
@_SIGNATURE
@inputs_file
@imported_code
@report_file
@as_json
def check(
    model: Path,
    onnx_file: Path,
    proof: Verify,
    time_budget: float | None,
    rtol: float | None,
    atol: float | None,
    signature_key: str | None,
    inputs: Path | None,
    code: tuple[str, ...],
    report: Path | None,
    as_json: bool,
) -> None:
    """Compare an ONNX file with a saved Keras model.

    Exits with 1 if they differ, and names the first layer that does.

    \b
    keras-blocks check trees.keras trees.onnx
    keras-blocks check trees.keras trees.onnx --proof fast --time-budget 10
    keras-blocks check trees.keras trees.int8.onnx --rtol 0.05
    """
    keras_model = _load_keras(model, signature_key, code, quiet=as_json)
    from keras_blocks.contract.array_files import read_arrays
    from keras_blocks.export import check_parity

    with usage_errors():
        found = check_parity(
            keras_model,
            onnx_file,
            inputs=None if inputs is None else read_arrays(inputs),
            verify=proof,
            time_budget=time_budget,
            rtol=rtol,
            atol=atol,
            verbose=False if as_json else None,
        )
    show(found, as_json, report)
    if not found.ok:
        sys.exit(FAILED)


def _load_keras(path: Path, signature: str | None, code: tuple[str, ...], quiet: bool) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    _tell_phase("Loading TensorFlow", quiet)
    try:
        with silent_stderr():
            from keras_blocks.export.conversion.loading import as_model
    except ModuleNotFoundError as error:
        if isinstance(error, KerasBlocksError):
            raise
        raise MissingExtraError("keras-blocks", "tensorflow", str(error.name)) from None
    import_code(code)
    _tell_phase(f"Loading {path}", quiet)
    try:
        return as_model(path, signature)
    except ExportError as error:
        raise UnreadableError(str(error)) from error


def _tell_phase(text: str, quiet: bool) -> None:
    """Says to those who wait at a terminal what takes so long; the export has bars of its own."""
    if not quiet and sys.stderr.isatty():
        click.echo(f"{text} ...", err=True)
