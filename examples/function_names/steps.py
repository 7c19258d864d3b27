"""The demo from reading to the summary, one function a step."""

from __future__ import annotations

import json
import platform
import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import plots
import tables
import tensorflow as tf
from approaches import APPROACHES, Approach
from data import BATCH, MOST_TOKENS, Inputs, Split, batches, split_by_module
from functions import read_functions
from rich.console import Console
from server import ServerError, ask, served
from train import Trained, train

from keras_blocks.errors import KerasBlocksError
from keras_blocks.export import ExportResult, export_onnx
from keras_blocks.trees import Vocabulary

# Batches of other shapes are traced anew: that is meant, and no reason for warnings.
tf.get_logger().setLevel("ERROR")

SHOWN = 8
# Two float32 programs that add in different orders; probabilities are at most 1.
SERVED_TOLERANCE = 1e-5
Failed = (KerasBlocksError, ServerError, OSError)


@dataclass(frozen=True)
class Options:
    """What the command line asked for; None leaves it to the demo."""

    output: Path
    epochs: int | None = None
    functions: int | None = None
    verbs: int = 20
    seed: int = 0
    port: int = 0


@dataclass
class Candidate:
    """An approach, and what became of it.

    Args:
        test: the test functions as the model's inputs.
        probabilities: (test functions, verbs), what Keras says about them.
        answers: the same from the server.
    """

    approach: Approach
    known: Vocabulary
    trained: Trained
    test: Inputs
    probabilities: np.ndarray
    export: ExportResult | None = None
    answers: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def name(self) -> str:
        return self.approach.name

    def accuracy(self, truth: np.ndarray, best: int = 1) -> float:
        """The share of functions whose verb is among the `best` most probable."""
        guesses = np.argsort(-self.probabilities, axis=1, kind="stable")[:, :best]
        return float(np.mean((guesses == truth[:, None]).any(axis=1)))


def run(options: Options, console: Console) -> None:
    """All steps; the results are in `options.output` when it returns."""
    started = time.perf_counter()
    output = options.output
    console.rule("1. The functions of Python's standard library", align="left")
    split = read(options, console)
    console.rule("2. Training", align="left")
    candidates = [fit(approach, split, options, console) for approach in APPROACHES]
    truth = split.labels(split.test)
    accuracies = {"majority": majority(split)}
    accuracies |= {candidate.name: candidate.accuracy(truth) for candidate in candidates}
    console.print(tables.accuracies(candidates, accuracies, truth))
    draw(candidates, accuracies, split, output)
    console.rule("3. Export to ONNX, with proof", align="left")
    for candidate in candidates:
        candidate.export = export(candidate, output, console)
    write_labels(candidates, split, output)
    console.rule("4. Questions to the server", align="left")
    asked = question(candidates, options, console)
    rows = shown_functions(split, options.seed)
    console.print(tables.answers(split, candidates, rows))
    worst = compare(candidates, console)
    console.rule("5. Summary", align="left")
    facts = summary(candidates, accuracies, split, options)
    facts |= {"served": {**asked, "largest_difference": worst}}
    facts["seconds"] = round(time.perf_counter() - started, 1)
    (output / "summary.json").write_text(json.dumps(facts, indent=2) + "\n")
    console.print(tables.closing(facts, output))


def read(options: Options, console: Console) -> Split:
    """Reads, drops what is too long, thins out where asked to, and splits by module."""
    with console.status("reading ..."):
        found = read_functions(options.verbs)
    short = [function for function in found if len(function.tokens) <= MOST_TOKENS]
    console.print(
        f"{len(found)} different functions have one of the {options.verbs} verbs that the most "
        f"modules use; {len(short)} of at most {MOST_TOKENS} tokens are kept."
    )
    if options.functions and options.functions < len(short):
        # Evenly from all modules, in order: the same on every machine.
        places = np.linspace(0, len(short) - 1, options.functions).astype(int)
        short = [short[place] for place in places]
    split = split_by_module(short, options.seed)
    console.print(tables.classes(split))
    return split


def fit(approach: Approach, split: Split, options: Options, console: Console) -> Candidate:
    """Trains one model, and asks it about the test functions."""
    keras.utils.set_random_seed(options.seed)
    known = approach.vocabulary(split)
    learning, validation = (
        batches(
            approach.inputs(part, known),
            split.labels(part),
            approach.sizes(part),
            training=part is split.train,
        )
        for part in (split.train, split.valid)
    )
    model = approach.model(len(known), len(split.verbs))
    epochs = options.epochs or approach.epochs
    trained = train(model, learning, validation, epochs, approach.learning_rate, console)
    test = approach.inputs(split.test, known)
    return Candidate(approach, known, trained, test, predict(model, test))


def predict(model: keras.Model, inputs: Inputs) -> np.ndarray:
    """What Keras says, in the order of the functions."""
    return model.predict(inputs, batch_size=BATCH, verbose=0)


def majority(split: Split) -> float:
    """The accuracy of always saying the most frequent verb of the training functions."""
    counts = np.bincount(split.labels(split.train), minlength=len(split.verbs))
    return float(np.mean(split.labels(split.test) == counts.argmax()))


def draw(
    candidates: list[Candidate], accuracies: dict[str, float], split: Split, output: Path
) -> None:
    """Saves the three plots."""
    best = max(candidates, key=lambda candidate: accuracies[candidate.name])
    histories = {candidate.name: candidate.trained.history for candidate in candidates}
    plots.accuracy_bars(accuracies, len(split.test), output / "accuracy.png")
    plots.learning_curves(histories, output / "learning_curves.png")
    plots.confusion_matrix(
        split.labels(split.test),
        best.probabilities.argmax(axis=1),
        split.verbs,
        best.name,
        output / "confusion_matrix.png",
    )


def export(candidate: Candidate, output: Path, console: Console) -> ExportResult:
    """Saves the model as Keras and as ONNX, the latter proven, in the server's layout."""
    model = candidate.trained.model
    folder = output / "models" / candidate.name / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (output / "keras").mkdir(exist_ok=True)
    model.save(output / "keras" / f"{candidate.name}.keras")
    result = export_onnx(model, folder / "model.onnx", verbose=False)
    console.print(tables.exported(candidate.name, result))
    return result


def write_labels(candidates: list[Candidate], split: Split, output: Path) -> None:
    """What the numbers of the inputs and outputs mean; label i of a view has the number i + 1."""
    labels: dict[str, Any] = {"verbs": split.verbs}
    labels |= {candidate.name: candidate.known.labels for candidate in candidates}
    (output / "labels.json").write_text(json.dumps(labels, indent=1) + "\n")


def question(candidates: list[Candidate], options: Options, console: Console) -> dict[str, Any]:
    """Asks a server about every test function."""
    requests, started = 0, time.perf_counter()
    log = options.output / "server.log"
    with served(options.output / "models", options.port, log) as address:
        console.print(f"`keras-blocks serve` answers on {address}")
        up = time.perf_counter()
        for candidate in candidates:
            parts = list(tf.data.Dataset.from_tensor_slices(candidate.test).ragged_batch(BATCH))
            candidate.answers = np.concatenate(
                [ask(address, candidate.name, part) for part in parts]
            )
            requests += len(parts)
    done = time.perf_counter()
    return {
        "requests": requests,
        "answers": sum(len(candidate.answers) for candidate in candidates),
        "seconds_to_start": round(up - started, 2),
        "seconds": round(done - up, 2),
    }


def compare(candidates: list[Candidate], console: Console) -> float:
    """The largest difference between a served probability and Keras's."""
    worst = max(float(np.abs(c.answers - c.probabilities).max()) for c in candidates)
    if not worst <= SERVED_TOLERANCE:
        raise ServerError(
            f"served answers differ from Keras's by {worst:.2g}, allowed {SERVED_TOLERANCE}"
        )
    total = sum(len(candidate.answers) for candidate in candidates)
    console.print(
        f"All {total} served answers equal Keras's; the largest difference of a probability is "
        f"{worst:.1e}."
    )
    return worst


def shown_functions(split: Split, seed: int) -> list[int]:
    """Some test functions that fit into a table, drawn by chance, not by how well they went."""
    fitting = [i for i, f in enumerate(split.test) if 2 <= f.text.count("\n") < tables.SNIPPET]
    return sorted(random.Random(seed).sample(fitting, min(SHOWN, len(fitting))))


def summary(
    candidates: list[Candidate], accuracies: dict[str, float], split: Split, options: Options
) -> dict[str, Any]:
    """The results for machines."""
    truth = split.labels(split.test)
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    return {
        "functions": {name: len(part) for name, part in parts.items()},
        "modules": {name: sorted({f.module for f in part}) for name, part in parts.items()},
        "verbs": split.verbs,
        "seed": options.seed,
        "accuracy": accuracies,
        "models": {candidate.name: _facts(candidate, truth) for candidate in candidates},
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def _facts(candidate: Candidate, truth: np.ndarray) -> dict[str, Any]:
    trained, result = candidate.trained, candidate.export
    return {
        "what": candidate.approach.what,
        "parameters": trained.model.count_params(),
        "accuracy_top_3": candidate.accuracy(truth, best=3),
        "epochs": len(trained.history["valid"]),
        "best_epoch": trained.best_epoch,
        "training_seconds": round(trained.seconds, 1),
        "history": trained.history,
        "onnx": result.filepath,
        "onnx_bytes": result.size_bytes,
        "onnx_ops": result.op_counts,
        "proof": result.parity.summary(),
    }
