"""The command line. Everything is imported when it is needed: `keras-blocks --help` is instant."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

import keras_blocks
from keras_blocks.cli.files import compare, float16, inspect, optimize, quantize
from keras_blocks.cli.models import check, export
from keras_blocks.cli.options import WIDTH, Commands
from keras_blocks.cli.serving import predict, serve
from keras_blocks.errors import KerasBlocksError


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)
@click.version_option(keras_blocks.__version__, prog_name="keras-blocks")
@click.option("--debug", is_flag=True, help="Show a traceback with an error.")
def main(debug: bool) -> None:
    """From Keras models to proven ONNX files to answers.

    \b
    keras-blocks export trees.keras -o trees.onnx     write it, and prove it
    keras-blocks inspect trees.onnx                   inputs, ops, size, proof
    keras-blocks quantize trees.onnx                  smaller, and what it cost
    keras-blocks compare trees.onnx trees.int8.onnx   two files side by side
    keras-blocks predict trees.onnx input.json        one answer
    keras-blocks serve models                         answers over HTTP

    Every command has a --help with examples, and --json where it reports.

    \b
    Exit codes:
      0  done; what was compared is the same
      1  it differs, cannot be exported, or failed on the way
      2  the command line is wrong, or a file cannot be read
    """


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
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


for _command in (
    export, check, inspect, compare, quantize, float16, optimize, predict, serve, demo,
):  # fmt: skip
    main.add_command(_command)


if __name__ == "__main__":
    main()
