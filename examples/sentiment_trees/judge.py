"""Judges the sentences of a file by an exported model, with onnxruntime and NumPy alone."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import numpy as np
import onnxruntime
from encoding import flat_inputs
from treebank import Sentence, TreebankError, read_sentences

from keras_blocks.trees import Vocabulary

AT_ONCE = 256  # sentences in a run


def judge(
    session: onnxruntime.InferenceSession, sentences: list[Sentence], known: Vocabulary
) -> np.ndarray:
    """(all nodes, classes): the probabilities of each node's classes."""
    parts = [sentences[start : start + AT_ONCE] for start in range(0, len(sentences), AT_ONCE)]
    return np.concatenate(
        [session.run(["sentiment"], flat_inputs(part, known))[0] for part in parts]
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("words", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("sentences", type=click.Path(path_type=Path))
@click.option(
    "--save", type=click.Path(dir_okay=False, path_type=Path),
    help="A .npy file for the probabilities.",
)  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Only so many sentences, drawn.")
@click.option("--seed", default=0, show_default=True, help="Of that draw.")
@click.option("--threads", default=0, help="Of onnxruntime; 0 takes all cores.")
def main(
    model: Path,
    words: Path,
    sentences: Path,
    save: Path | None,
    limit: int | None,
    seed: int,
    threads: int,
) -> None:
    """Judge SENTENCES, a file of bracketed sentences, by an exported MODEL.

    MODEL is models/NAME/1/model.onnx and WORDS is words.json of what main.py wrote. Prints facts
    as JSON.
    """
    try:
        found = read_sentences(sentences, limit, seed)
    except TreebankError as error:
        raise click.ClickException(str(error)) from None
    known = Vocabulary(json.loads(words.read_text())["words"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options)
    started = time.perf_counter()
    probabilities = judge(session, found, known)
    seconds = time.perf_counter() - started
    if save:
        np.save(save, probabilities)
    loaded = sorted({"tensorflow", "keras", "torch"} & sys.modules.keys())
    facts = {"sentences": len(found), "nodes": len(probabilities), "seconds": seconds}
    click.echo(json.dumps({**facts, "frameworks_loaded": loaded}))


if __name__ == "__main__":
    main()
