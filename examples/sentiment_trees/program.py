"""The example from reading to the summary, one function a step."""

from __future__ import annotations

import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import reports
import tensorflow as tf
from batches import BINARY, FINE, Rows, Task, rows_of
from drawing import page
from learner import Settings, make_learner
from rich.console import Console
from scores import Judged, Score, majority, score
from training import JUDGED_AT_ONCE, Trained, train
from treebank import Sentence, Treebank, TreebankError, read_treebank, vocabulary
from whole_files import whole_file
from word_vectors import WordVectorsError, read_vectors, start_vectors

from keras_blocks.errors import KerasBlocksError
from keras_blocks.export import ExportResult, export_onnx
from keras_blocks.trees import Vocabulary

# Batches of other shapes are traced anew: that is meant, and no reason for warnings.
tf.get_logger().setLevel("ERROR")

SENTENCES = Path(__file__).parent / "sentences"
DRAWN = 12
DRAWN_WORDS = range(5, 19)  # of the sentences that are drawn
# Two float32 programs that add in different orders; probabilities are at most 1.
TOLERANCE = 1e-5


class FileError(Exception):
    """The exported file, run alone, did not answer as the model does."""


Failed = (TreebankError, WordVectorsError, KerasBlocksError, FileError, OSError)


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Args:
        data: the treebank's folder, None for the example's own sentences.
        limit: int, only so many sentences of each file, drawn by the seed.
        binary_apart: bool, train a second model for two classes, as the papers do.
    """

    output: Path
    settings: Settings
    data: Path | None = None
    glove: Path | None = None
    limit: int | None = None
    binary_apart: bool = False


@dataclass
class Candidate:
    """A trained model of a task, and what came of it.

    Args:
        judged: what it says about the sentences of "dev" and "test".
    """

    task: Task
    trained: Trained
    model: keras.Model
    judged: dict[str, Judged]

    @property
    def scores(self) -> dict[str, dict[str, Score]]:
        """Part -> name of a task -> score; a fine-grained model is scored in two classes too."""
        tasks = (FINE, BINARY) if self.task is FINE else (BINARY,)
        return {
            part: {task.name: score(judged, task) for task in tasks}
            for part, judged in self.judged.items()
        }


def run(options: Options, console: Console) -> None:
    """All steps; the results are in `options.output` when it returns."""
    started = time.perf_counter()
    console.rule("1. The sentences", align="left")
    bank = read(options, console)
    known = vocabulary(bank.train)
    vectors = starting_vectors(options, known, console)
    console.rule("2. Training", align="left")
    tasks = (FINE, BINARY) if options.binary_apart else (FINE,)
    candidates = [fit(task, bank, known, vectors, options.settings, console) for task in tasks]
    guesses = {task.name: majority(bank.train, bank.test, task) for task in (FINE, BINARY)}
    console.print(reports.accuracies(candidates, guesses))
    console.rule("3. Export to ONNX, with proof", align="left")
    write(options.output / "words.json", json.dumps({"words": known.labels}) + "\n")
    exports = {c.task.name: export(c, options.output, console) for c in candidates}
    alone = {c.task.name: run_alone(c, options, console) for c in candidates}
    console.rule("4. Pictures", align="left")
    draw(candidates[0], options, console)
    console.rule("5. Summary", align="left")
    facts = summary(candidates, bank, known, options)
    facts |= {"majority": {name: asdict(guess) for name, guess in guesses.items()}}
    facts |= {"export": {name: reports.exported_facts(one) for name, one in exports.items()}}
    facts |= {"onnxruntime_alone": alone, "seconds": round(time.perf_counter() - started, 1)}
    write(options.output / "summary.json", json.dumps(facts, indent=2) + "\n")
    console.print(reports.closing(facts, options.data is None, options.output))


def read(options: Options, console: Console) -> Treebank:
    """Reads the sentences and says what they are."""
    if options.data is None:
        console.print(reports.MECHANICS_ONLY, style="yellow")
    bank = read_treebank(options.data or SENTENCES, options.limit, options.settings.seed)
    console.print(reports.sizes(bank))
    return bank


def starting_vectors(options: Options, known: Vocabulary, console: Console) -> np.ndarray | None:
    """What the word vectors start from, where a file of them is given."""
    if options.glove is None:
        return None
    width = options.settings.embedded
    found = read_vectors(options.glove, known.labels, width, console)
    console.print(f"{len(found)} of {len(known.labels)} words have a vector in {options.glove}.")
    return start_vectors(known, found, width, options.settings.seed)


def fit(
    task: Task,
    bank: Treebank,
    known: Vocabulary,
    vectors: np.ndarray | None,
    settings: Settings,
    console: Console,
) -> Candidate:
    """Trains one model, and asks it about the dev and the test sentences."""
    keras.utils.set_random_seed(settings.seed)
    learned = list(filter(task.takes, bank.train))
    dev, test = (rows_of(part, known, task) for part in (bank.dev, bank.test))
    learner = make_learner(len(known), len(task.classes), settings, vectors)
    trained = train(learner, rows_of(learned, known, task), dev, settings, task.name, console)
    model = learner.judge()
    judged = {"dev": judge(model, bank.dev, dev), "test": judge(model, bank.test, test)}
    return Candidate(task, trained, model, judged)


def judge(model: keras.Model, sentences: list[Sentence], rows: Rows) -> Judged:
    """What Keras says about sentences."""
    answers = model.predict(rows.in_order(JUDGED_AT_ONCE), verbose=0)
    return Judged(sentences, answers.values.numpy(), answers.row_splits.numpy())


def write(path: Path, text: str) -> None:
    """Writes a text whole or not at all."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def model_path(output: Path, task: Task) -> Path:
    """Where the exported model lies: the layout that `keras-blocks serve` reads."""
    return output / "models" / task.name / "1" / "model.onnx"


def export(candidate: Candidate, output: Path, console: Console) -> ExportResult:
    """Saves the model as Keras and as ONNX, the latter proven."""
    with whole_file(output / "keras" / f"{candidate.task.name}.keras") as unfinished:
        candidate.model.save(unfinished)
    result = export_onnx(candidate.model, model_path(output, candidate.task), verbose=False)
    console.print(reports.exported(candidate.task.name, result))
    return result


def run_alone(candidate: Candidate, options: Options, console: Console) -> dict[str, Any]:
    """Judges the test file by the exported model in a process that has no TensorFlow.

    Raises:
        FileError: it says something else than Keras did.
    """
    task, source = candidate.task, (options.data or SENTENCES) / "test.txt"
    command = [
        sys.executable, Path(__file__).parent / "judge.py", model_path(options.output, task),
        options.output / "words.json", source, "--threads", "1",
        *(["--limit", options.limit, "--seed", options.settings.seed] if options.limit else []),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        answers = Path(folder) / "answers.npy"
        done = subprocess.run(
            [*map(str, command), "--save", str(answers)], capture_output=True, text=True
        )
        if done.returncode:
            raise FileError(f"judge.py ended with {done.returncode}: {done.stderr.strip()}")
        probabilities = np.load(answers)
    facts = json.loads(done.stdout)
    expected = candidate.judged["test"].probabilities
    worst = float(np.abs(probabilities - expected).max())
    same = bool((probabilities.argmax(axis=1) == expected.argmax(axis=1)).all())
    if worst > TOLERANCE:
        raise FileError(
            f"onnxruntime's answers differ from Keras's by {worst:.2g}, allowed {TOLERANCE}"
        )
    console.print(reports.alone(facts, worst, same))
    return {**facts, "largest_difference": worst, "same_classes": same}


def draw(candidate: Candidate, options: Options, console: Console) -> None:
    """Writes the page of parses: test sentences drawn by chance, not by how well they went."""
    judged = candidate.judged["test"]
    fitting = [place for place, one in enumerate(judged.sentences) if len(one.words) in DRAWN_WORDS]
    chance = random.Random(options.settings.seed)
    chosen = sorted(chance.sample(fitting, min(DRAWN, len(fitting))))
    parses = [(judged.sentences[place], judged.of(place)) for place in chosen]
    note = "Test sentences drawn by chance; the model never saw them."
    if options.data is None:
        note += " " + reports.MECHANICS_ONLY
    path = options.output / "parses.html"
    write(path, page(parses, "Sentiment of every phrase", note))
    console.print(f"{len(parses)} test sentences are drawn in {path}.")


def summary(
    candidates: list[Candidate], bank: Treebank, known: Vocabulary, options: Options
) -> dict[str, Any]:
    """The results for machines."""
    return {
        "data": str(options.data) if options.data else "the example's own sentences",
        "sentences": {name: len(part) for name, part in bank.parts.items()},
        "words": len(known),
        "settings": asdict(options.settings),
        "models": {candidate.task.name: _facts(candidate) for candidate in candidates},
        "versions": {
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
    }


def _facts(candidate: Candidate) -> dict[str, Any]:
    trained = candidate.trained
    return {
        "parameters": candidate.model.count_params(),
        "best_epoch": trained.best_epoch,
        "loss": trained.loss,
        "dev_root_accuracy": trained.dev,
        "epoch_seconds": trained.seconds,
        "scores": {
            part: {name: asdict(one) for name, one in scores.items()}
            for part, scores in candidate.scores.items()
        },
    }
