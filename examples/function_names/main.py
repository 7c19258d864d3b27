"""Names the functions of Python's standard library: from source code to answers over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# The same results on machines with and without a GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import click
from rich.console import Console

from keras_blocks.cli.quiet import silent_stderr

CHECKOUT = Path(__file__).resolve().parents[2]
WIDTH = 110  # of the output where it does not go to a terminal
FAILED, INTERRUPTED = 1, 130


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=CHECKOUT / "demo_output",
    show_default="demo_output in the checkout",
    help="Folder for the models, plots and the summary; what is there is overwritten.",
)
@click.option("--epochs", type=click.IntRange(1), help="Epochs of each model, not its own number.")
@click.option("--functions", type=click.IntRange(200), help="Take only about this many functions.")
@click.option("--verbs", type=click.IntRange(2, 100), default=20, show_default=True)
@click.option(
    "--seed", default=0, show_default=True, help="Chooses held-out modules and first weights."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The server's; by default a free one."
)
@click.option("--quick", is_flag=True, help="600 functions and 2 epochs: only to see it run.")
def main(
    output: Path,
    epochs: int | None,
    functions: int | None,
    verbs: int,
    seed: int,
    port: int,
    quick: bool,
) -> None:
    """Guess the verb of a Python function's name (get, set, is, ...) from its body.

    Reads the functions of the standard library, trains a bag of nodes, a tree and a sequence
    model, exports them with proof, serves them without TensorFlow, and asks over HTTP about
    functions of modules that no model was trained on.
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    if quick:
        epochs, functions = epochs or 2, functions or 600
    try:
        (output / "models").mkdir(parents=True, exist_ok=True)
        console.print("Loading TensorFlow ...")
        with silent_stderr():
            from steps import Failed, Options, run
    except OSError as error:
        console.print(f"The results cannot be written to {output}: {error.strerror}.", style="red")
        sys.exit(FAILED)
    except ModuleNotFoundError as error:
        needed = "pip install 'keras-blocks[tensorflow,serving,dev]'"
        console.print(f"{error.name} is not installed: {needed}", style="red", markup=False)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        _interrupted(console, output)
    try:
        run(Options(output, epochs, functions, verbs, seed, port), console)
    except KeyboardInterrupt:
        _interrupted(console, output)
    except Failed as error:
        console.print(f"Failed: {error}", style="red", markup=False)
        sys.exit(FAILED)


def _interrupted(console: Console, output: Path) -> None:
    console.print(f"\nInterrupted. Nothing is left running; what was made so far is in {output}.")
    # Not sys.exit: TensorFlow's threads would be waited for.
    sys.stdout.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
