"""The commands that need Keras: `export` a saved model, `check` a file against one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from keras_blocks.cli_options import (
    FAILED,
    FILE,
    NEW_FILE,
    as_json,
    report_file,
    show,
    usage_errors,
)
from keras_blocks.errors import ExportError, KerasBlocksError, MissingExtraError, UnreadableError
from keras_blocks.silence import silent_stderr

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


@click.command()
@_KERAS_FILE
@click.option("-o", "--output", type=NEW_FILE, required=True, help="The ONNX file to write.")
@click.option("--opset", type=int, help="ONNX opset version; by default the newest that is proven.")
@click.option("--no-verify", is_flag=True, help="Do not prove that the file equals the model.")
@click.option("--external-data", is_flag=True, help="Write the weights beside the file.")
@_LEVEL
@_BUDGET
@report_file
@as_json
def export(
    model: Path,
    output: Path,
    opset: int | None,
    no_verify: bool,
    external_data: bool,
    proof: str,
    time_budget: float | None,
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
    """
    keras_model = _load_keras(model)
    from keras_blocks.export import export_onnx

    with usage_errors():
        result = export_onnx(
            keras_model,
            output,
            opset_version=opset,
            verify=not no_verify and _LEVELS[proof],
            time_budget=time_budget,
            external_data=external_data,
        )
    show(result, as_json, report)


@click.command()
@_KERAS_FILE
@click.argument("onnx_file", type=FILE, metavar="MODEL.onnx")
@_LEVEL
@_BUDGET
@click.option("--rtol", type=click.FloatRange(0), help="Allowed error, by the largest magnitude.")
@click.option("--atol", type=click.FloatRange(0), help="Allowed absolute error.")
@report_file
@as_json
def check(
    model: Path,
    onnx_file: Path,
    proof: str,
    time_budget: float | None,
    rtol: float | None,
    atol: float | None,
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
    keras_model = _load_keras(model)
    from keras_blocks.export import check_parity

    with usage_errors():
        found = check_parity(
            keras_model,
            onnx_file,
            verify=_LEVELS[proof],
            time_budget=time_budget,
            rtol=rtol,
            atol=atol,
        )
    show(found, as_json, report)
    if not found.ok:
        sys.exit(FAILED)


_LEVELS: dict[str, Any] = {"fast": "fast", "usual": True, "thorough": "thorough"}


def _load_keras(path: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with silent_stderr():
            from keras_blocks.export.conversion.loading import as_model
    except ModuleNotFoundError as error:
        if isinstance(error, KerasBlocksError):
            raise
        raise MissingExtraError("keras-blocks", "tensorflow", str(error.name)) from None
    try:
        return as_model(path)
    except ExportError as error:
        raise UnreadableError(str(error)) from error
