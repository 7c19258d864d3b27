"""Every block beside its stock Keras twin: a training step, inference, and the exported files.

    python benchmarks/blocks.py              # all, some ten minutes
    python benchmarks/blocks.py --quick      # fewer runs and sizes
    python benchmarks/blocks.py --only GRU   # what has GRU in its name

Ratios are ours by the peer's: below 1 we are faster. One thread, medians of interleaved runs. Keras
runs both without XLA, which is also what `compile` chooses by itself on a CPU.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import click
import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from harness import RESULTS, RUNS, Race, describe, race, save, surroundings
from one_thread import session_options
from peers import BLOCKS, Pair, ragged_pairs, recurrent
from ratios import line, plot, report, verdicts
from rich.console import Console

from keras_blocks.export import export_onnx

PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "numpy", "keras-blocks")
HIDDEN = (32, 64, 128)
LEARNING_RATE = 1e-3
# A benchmark of a wrong file says nothing; this only asks whether it is the same function.
SAME = {"rtol": 1e-3, "atol": 1e-4}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="5 runs, hidden size 32: only to see it run.")
@click.option("--only", default="", help="Only what has this in its name.", metavar="NAME")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
def main(quick: bool, only: str, output: Path) -> None:
    """Race every block against its stock Keras twin, and the exported files against each other."""
    one_thread()
    console = Console()
    facts = surroundings(PACKAGES)
    console.print(describe(facts), highlight=False)
    runs = 5 if quick else RUNS
    hidden = HIDDEN[:1] if quick else HIDDEN
    blocks = [pair for pair in [*BLOCKS, *ragged_pairs()] if only.lower() in pair.name.lower()]
    special = [
        pair for units in hidden for pair in recurrent(units) if only.lower() in pair.name.lower()
    ]
    if not blocks + special:
        raise click.ClickException(f"no benchmark has {only!r} in its name")
    rows: dict[str, dict[str, Race | str]] = {}
    for pair in blocks + special:
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        contests = (train, infer, exported) if pair in blocks else (exported,)
        rows[pair.name] = {contest.__name__: contest(pair, runs) for contest in contests}
        console.print(line(pair.name, rows[pair.name]), highlight=False, soft_wrap=True)
    text = report(rows, facts, runs)
    paths = save("blocks", {"surroundings": facts, "runs": runs, "races": rows}, text, output)
    paths.append(plot(rows, output / "blocks.png"))
    console.print(verdicts(rows), highlight=False)
    console.print(f"Saved {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)


def one_thread() -> None:
    """TensorFlow on one thread, as onnxruntime below: figures that do not hang on the cores."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def train(pair: Pair, runs: int) -> Race:
    """A step of training: forward, backward to weights and input, and the update."""
    return race(*map(_training_step, pair.models(), pair.inputs()), runs)


def _training_step(model: keras.Model, x: Any) -> Callable[[], Any]:
    weights = model.trainable_variables
    optimizer = keras.optimizers.SGD(LEARNING_RATE)
    optimizer.build(weights)

    # Token ids have no gradient; layers without weights have no other.
    behind = [x] if x.dtype.is_floating else []

    @tf.function(jit_compile=False)
    def step() -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(behind)
            y = model(x, training=True)
            loss = tf.reduce_mean(tf.square(y.values if isinstance(y, tf.RaggedTensor) else y))
        gradients = tape.gradient(loss, [*weights, *behind])
        if weights:
            optimizer.apply(gradients[: len(weights)], weights)
        # What is not returned would not be computed.
        return [loss, *gradients[len(weights) :]]

    return step


def infer(pair: Pair, runs: int) -> Race:
    """One batch through the model in a `tf.function`, as `predict` does it."""
    return race(*map(_inference, pair.models(), pair.inputs()), runs)


def _inference(model: keras.Model, x: Any) -> Callable[[], Any]:
    return tf.function(lambda: model(x, training=False), jit_compile=False)


def exported(pair: Pair, runs: int) -> Race | str:
    """Our file of our model against the stock exporter's file of the twin, or why there is none."""
    (ours, peer), (x, padded) = pair.models(), pair.inputs()
    with tempfile.TemporaryDirectory() as folder:
        our_file, peer_file = Path(folder, "ours.onnx"), Path(folder, "peer.onnx")
        export_onnx(ours, our_file, verify=False, verbose=False)
        our_run = _session(our_file, _feeds(x), ours(x))
        expected = peer(padded)  # Keras exports no model that has never been called.
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peer.export(str(peer_file), format="onnx", verbose=False)
            peer_run = _session(peer_file, {None: padded.numpy()}, expected)
        except Exception as error:  # the stock exporter fails in many ways
            return f"no stock file: {str(error).strip().splitlines()[0][:80]}"
    return race(our_run, peer_run, runs)


def _feeds(x: Any) -> dict[str | None, np.ndarray]:
    if isinstance(x, tf.RaggedTensor):
        return {"x": x.values.numpy(), "x.row_splits": x.row_splits.numpy()}
    return {"x": x.numpy()}


def _session(
    path: Path, feeds: dict[str | None, np.ndarray], expected: tf.Tensor
) -> Callable[[], Any]:
    """The file as a function of nothing, after a look whether it computes the right thing."""
    session = onnxruntime.InferenceSession(
        path, session_options(), providers=["CPUExecutionProvider"]
    )
    # The stock exporter has names of its own.
    first = session.get_inputs()[0].name
    named = {first if name is None else name: value for name, value in feeds.items()}
    flat = expected.values if isinstance(expected, tf.RaggedTensor) else expected
    np.testing.assert_allclose(session.run(None, named)[0], flat.numpy(), **SAME)
    return lambda: session.run(None, named)


if __name__ == "__main__":
    main()
