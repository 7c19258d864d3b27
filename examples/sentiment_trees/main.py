"""Learns the sentiment of every phrase of a sentence: from bracketed parses to a proven file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# The same results on machines with and without a GPU.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import click
from rich.console import Console

from keras_blocks.cli.quiet import silent_stderr

CHECKOUT = Path(__file__).resolve().parents[2]
WIDTH = 110  # of the output where it does not go to a terminal
FAILED, INTERRUPTED = 1, 130
SHARE = click.FloatRange(0, 1, max_open=True)
FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
POSITIVE, RATE = click.IntRange(1), click.FloatRange(0, min_open=True)


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--data",
    type=FOLDER,
    help="Folder with the treebank's train.txt, dev.txt and test.txt; without it a few sentences "
    "of the example's own show the mechanics.",
)
@click.option(
    "--glove",
    type=FILE,
    help="Text file of word vectors to start from, such as glove.840B.300d.txt: a word and its "
    "numbers on each line. Only the words of the sentences are kept in memory.",
)
@click.option(
    "-o",
    "--output",
    type=FOLDER,
    default=CHECKOUT / "demo_output" / "sentiment_trees",
    show_default="demo_output/sentiment_trees in the checkout",
    help="Folder for the models, the pictures and the summary; what is there is overwritten.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adagrad", "adam"]),
    default="adagrad",
    show_default=True,
    help="Of all weights but the word vectors, which learn by plain gradient descent.",
)
@click.option("--learning-rate", type=RATE, help="  [default: 0.05 for adagrad, 0.001 for adam]")
@click.option(
    "--words-learning-rate", type=RATE, default=0.2, show_default=True, help="Of word vectors."
)
@click.option("--hidden", type=POSITIVE, default=150, show_default=True, help="Width of a node.")
@click.option("--embedded", type=POSITIVE, default=300, show_default=True, help="Width of a word.")
@click.option("--batch", type=POSITIVE, default=25, show_default=True, help="Trees in a batch.")
@click.option(
    "--dropout", type=SHARE, default=0.5, show_default=True, help="Of a node before it is judged."
)
@click.option(
    "--decay", type=click.FloatRange(0), default=1e-4, show_default=True, help="Weight of L2."
)
@click.option("--epochs", type=POSITIVE, default=20, show_default=True, help="The most epochs.")
@click.option(
    "--patience",
    type=POSITIVE,
    default=4,
    show_default=True,
    help="Epochs without a better one on the dev sentences before training ends.",
)
@click.option("--seed", default=0, show_default=True, help="Chooses weights, batches, --limit.")
@click.option("--binary-apart", is_flag=True, help="Train a second model for two classes.")
@click.option("--limit", type=POSITIVE, help="Take only so many sentences of each file, drawn.")
def main(
    data: Path | None,
    glove: Path | None,
    output: Path,
    binary_apart: bool,
    limit: int | None,
    **settings: Any,
) -> None:
    """Learn the sentiment of every phrase of a sentence from a treebank.

    A binary Tree-LSTM reads the words at the leaves of each parse and judges every node: very
    negative, negative, neutral, positive or very positive. The best epoch on the dev sentences is
    kept, scored on the test sentences, exported to ONNX with proof, run by onnxruntime alone, and
    drawn: each parse coloured by the sentiment of its nodes.

    \b
    The Stanford Sentiment Treebank is not part of this package. Its files hold one bracketed
    sentence a line, with a label from 0 to 4 at every node:
      (3 (2 The) (3 (3 good) (2 ones)))

    \b
    Try:
      python examples/sentiment_trees/main.py
      python examples/sentiment_trees/main.py --data trees
      python examples/sentiment_trees/main.py --data trees --glove glove.840B.300d.txt

    The defaults are the settings of Tai et al. 2015 (https://arxiv.org/abs/1503.00075), but for
    the words: they are read in small letters, start from random vectors where no file of vectors
    is given, and learn at twice the rate.
    """
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    try:
        output.mkdir(parents=True, exist_ok=True)
        console.print("Loading TensorFlow ...")
        with silent_stderr():
            from learner import Settings
            from program import Failed, Options, run
    except OSError as error:
        console.print(f"The results cannot be written to {output}: {error.strerror}.", style="red")
        sys.exit(FAILED)
    except ModuleNotFoundError as error:
        needed = "pip install 'keras-blocks[tensorflow]'"
        console.print(f"{error.name} is not installed: {needed}", style="red", markup=False)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        _interrupted(console, output)
    try:
        run(Options(output, Settings(**settings), data, glove, limit, binary_apart), console)
    except KeyboardInterrupt:
        _interrupted(console, output)
    except Failed as error:
        console.print(f"Failed: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(FAILED)


def _interrupted(console: Console, output: Path) -> None:
    console.print(f"\nInterrupted. What was finished so far is in {output}, and no part of a file.")
    # Not sys.exit: TensorFlow's threads would be waited for.
    sys.stdout.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
