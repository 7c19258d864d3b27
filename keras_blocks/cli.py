"""The command line. Everything is imported when it is needed: `keras-blocks --help` is instant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import click

import keras_blocks
from keras_blocks.errors import KerasBlocksError, MissingExtraError
from keras_blocks.silence import silent_stderr

FAILED = 1  # click itself exits with 2 where the command line is wrong

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)


class _Commands(click.Group):
    """Prints expected errors as one line; a traceback only where --debug asks for it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KerasBlocksError, OSError) as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise click.ClickException(_message(error)) from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(keras_blocks.__version__, prog_name="keras-blocks")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def main(debug: bool) -> None:
    """From Keras models to proven ONNX files to answers.

    \b
    keras-blocks export trees.keras -o models/trees/1/model.onnx  # and prove it
    keras-blocks inspect models/trees/1/model.onnx                # inputs, ops
    keras-blocks predict models/trees/1/model.onnx input.json     # one answer
    keras-blocks serve models                                     # over HTTP

    Exit codes: 0 done, 1 it failed or the files differ, 2 the command line is wrong.
    """


@main.command()
@click.argument("model", type=_FILE, metavar="MODEL.keras")
@click.option("-o", "--output", type=_NEW_FILE, required=True, help="The ONNX file to write.")
@click.option("--opset", type=int, help="ONNX opset version; by default the newest that is proven.")
@click.option("--no-verify", is_flag=True, help="Do not prove that the file equals the model.")
def export(model: Path, output: Path, opset: int | None, no_verify: bool) -> None:
    """Write a saved Keras model as a proven ONNX file.

    The proof: both compute the same on inputs of many shapes.

    A file that differs from the model is not left under the asked name.

    \b
    keras-blocks export trees.keras -o trees.onnx
    """
    keras_model = _load_keras(model)
    from keras_blocks.export import export_onnx

    click.echo(export_onnx(keras_model, output, opset_version=opset, verify=not no_verify))


@main.command()
@click.argument("model", type=_FILE, metavar="MODEL.keras")
@click.argument("onnx_file", type=_FILE, metavar="MODEL.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def check(model: Path, onnx_file: Path, as_json: bool) -> None:
    """Compare an ONNX file with a saved Keras model.

    Exits with 1 if they differ.

    \b
    keras-blocks check trees.keras trees.onnx
    """
    keras_model = _load_keras(model)
    from keras_blocks.export import check_parity

    report = check_parity(keras_model, onnx_file)
    click.echo(report.to_json() if as_json else report)
    if not report.ok:
        sys.exit(FAILED)


@main.command()
@click.argument("onnx_file", type=_FILE, metavar="MODEL.onnx")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(onnx_file: Path, as_json: bool) -> None:
    """Show the inputs, outputs, size and ops of any ONNX file.

    \b
    keras-blocks inspect trees.onnx
    """
    from keras_blocks.serving.display import show_inspection
    from keras_blocks.serving.inspection import inspect_file

    facts = inspect_file(onnx_file)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        show_inspection(facts)


@main.command()
@click.argument("onnx_file", type=_FILE, metavar="MODEL.onnx")
@click.argument("inputs", type=_FILE, metavar="INPUT.json|INPUT.npz")
@click.option("-o", "--output", type=_NEW_FILE, help="Write the outputs to a .json or .npz file.")
def predict(onnx_file: Path, inputs: Path, output: Path | None) -> None:
    """Run an ONNX file on one file of inputs, without TensorFlow.

    The JSON is {"input name": nested lists}; a ragged input is a list of rows of unequal length.
    The body of an infer request of the Open Inference Protocol is understood too. An .npz file
    holds one array per input, a ragged one as NAME and NAME.row_splits.

    \b
    echo '{"tokens": [[4, 7], [9]], "parents": [[-1, 0], [-1]]}' > input.json
    keras-blocks predict trees.onnx input.json
    keras-blocks predict trees.onnx input.json -o output.npz
    """
    from keras_blocks.serving.display import show_outputs
    from keras_blocks.serving.files import read_inputs, write_outputs
    from keras_blocks.serving.model import Model

    model = Model.load(onnx_file)
    outputs = model.predict(read_inputs(inputs, model.contract))
    if output is None:
        show_outputs(model.contract, outputs)
    else:
        write_outputs(output, model.contract, outputs)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    default=8080,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one.",
)
@click.option(
    "--max-body-mb",
    default=16.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Largest request body, in MiB; larger ones get 413.",
)
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads that one run may use; by default onnxruntime decides.",
)
def serve(directory: Path, host: str, port: int, max_body_mb: float, threads: int | None) -> None:
    """Serve the models of a folder over HTTP, without TensorFlow.

    DIR holds <name>/<version>/model.onnx: any ONNX file, the highest version answering where none
    is asked for. The endpoints are those of the Open Inference Protocol v2. SIGTERM or Ctrl+C
    finishes what is in flight and ends.

    \b
    keras-blocks export trees.keras -o models/trees/1/model.onnx
    keras-blocks serve models --port 8080
    curl http://127.0.0.1:8080/v2/models/trees
    """
    from keras_blocks.serving import Limits
    from keras_blocks.serving import serve as serve_repository
    from keras_blocks.serving.display import announce

    serve_repository(
        directory,
        host=host,
        port=port,
        limits=Limits(body_bytes=int(max_body_mb * 2**20)),
        threads=threads,
        on_start=announce,
    )


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def demo(arguments: tuple[str, ...]) -> None:
    """Train, export, prove and serve models that name Python functions.

    Runs examples/function_names/main.py of a checkout, with the arguments that follow.
    """
    program = Path(keras_blocks.__file__).parent.parent / "examples" / "function_names" / "main.py"
    if not program.is_file():
        raise KerasBlocksError(
            "the demo is not part of the installed package: it is examples/function_names in the "
            "source repository; run `make demo` in a checkout of it"
        )
    sys.exit(subprocess.run([sys.executable, str(program), *arguments], check=False).returncode)


def _load_keras(path: Path) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with silent_stderr():
            import keras

            # Saved models name their layers; a layer is known once its module is imported.
            for name in keras_blocks.__all__:
                getattr(keras_blocks, name)
    except ModuleNotFoundError as error:
        if isinstance(error, KerasBlocksError):
            raise
        raise MissingExtraError("keras-blocks", "tensorflow", str(error.name)) from None
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many kinds for a broken file
        raise KerasBlocksError(
            f"{path} cannot be loaded as a Keras model: {_reason(error)}"
        ) from error


def _reason(error: Exception) -> str:
    text = str(error).strip()
    unknown = re.search(r"Could not locate class '[^']*'", text)  # Keras buries it in a config
    if unknown:
        return (
            f"{unknown[0]}. A model with layers of your own is exported where they are defined: "
            f"keras_blocks.export.export_onnx(model, 'model.onnx') in Python."
        )
    return text.partition("\n")[0]


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)


if __name__ == "__main__":
    main()
