"""What the demo prints."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from data import Split
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from keras_blocks.export import ExportResult
from keras_blocks.export.reports.report import size_text

SNIPPET = 7  # lines
SNIPPET_WIDTH = 48


def classes(split: Split) -> Table:
    """How often each verb occurs in each part."""
    parts = {"train": split.train, "validation": split.valid, "test": split.test}
    table = Table(box=box.SIMPLE_HEAD, title="Whole modules are held out", title_justify="left")
    table.add_column("")
    for name in parts:
        table.add_column(name, justify="right")
    modules = [len({function.module for function in part}) for part in parts.values()]
    table.add_row("modules", *map(str, modules))
    table.add_row("functions", *(str(len(part)) for part in parts.values()), end_section=True)
    counts = [Counter(function.verb for function in part) for part in parts.values()]
    for verb in split.verbs:
        table.add_row(verb, *(str(count[verb]) for count in counts))
    return table


def accuracies(candidates: list[Any], correct: dict[str, float], truth: np.ndarray) -> Group:
    """The models beside the majority class, the best in bold."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "what it sees"):
        table.add_column(heading, no_wrap=True)
    for heading in ("correct", "in first 3", "best epoch", "parameters", "training"):
        table.add_column(heading, justify="right")
    table.add_row("majority", "always the most frequent", f"{correct['majority']:.1%}")
    best, second, *_ = sorted(correct, key=lambda name: -correct[name])
    for candidate in candidates:
        trained = candidate.trained
        table.add_row(
            candidate.name,
            candidate.approach.what,
            f"{correct[candidate.name]:.1%}",
            f"{candidate.accuracy(truth, best=3):.1%}",
            f"{trained.best_epoch} of {len(trained.history['valid'])}",
            f"{trained.model.count_params():,}",
            f"{trained.seconds:.0f} s",
            style="bold" if candidate.name == best else "",
        )
    spread = 1.96 * math.sqrt(correct[best] * (1 - correct[best]) / len(truth))
    return Group(
        table,
        f"{best} is ahead of {second} by {100 * (correct[best] - correct[second]):.1f} points. On "
        f"{len(truth)} functions a share is known to about {100 * spread:.0f} points either way: "
        "smaller differences mean little, and another --seed, which holds out other modules, may "
        "turn them round.",
    )


def exported(name: str, result: ExportResult) -> Text:
    """One line a file."""
    proof = result.parity
    notable = ("GRU", "LSTM", "Loop", "Scan")
    ops = [f"{op} {result.op_counts[op]}" for op in notable if op in result.op_counts]
    return Text(
        f"{name:<9} {size_text(result.size_bytes):>9}, {sum(result.op_counts.values())} nodes"
        f"{' (' + ', '.join(ops) + ')' if ops else ''}; equal to Keras on {proof.samples} samples "
        f"of different shapes, largest error {proof.max_error:.1e}"
    )


def answers(split: Split, candidates: list[Any], rows: list[int]) -> Table:
    """Some functions as the models see them, with what the server says about them."""
    table = Table(
        box=box.SIMPLE_HEAD, show_lines=True, title="Held-out functions, asked over HTTP",
        title_justify="left",
    )  # fmt: skip
    table.add_column("as the models see it", no_wrap=True)
    table.add_column("in the source", overflow="fold")
    for candidate in candidates:
        table.add_column(candidate.name, no_wrap=True)
    for row in rows:
        function = split.test[row]
        guesses = [_guess(candidate.answers[row], function.verb, split) for candidate in candidates]
        name = Text.assemble((function.verb, "bold"), f"\n{function.name}\n{function.module}")
        table.add_row(_snippet(function.text), name, *guesses)
    return table


def _guess(probabilities: np.ndarray, verb: str, split: Split) -> Text:
    best = int(probabilities.argmax())
    right = split.verbs[best] == verb
    text = f"{split.verbs[best]} {probabilities[best]:.0%}"
    return Text(f"{text} {'✓' if right else '✗'}", style="green" if right else "red")


def _snippet(text: str) -> Text:
    lines = text.splitlines()[:SNIPPET]
    return Text(
        "\n".join(
            line if len(line) <= SNIPPET_WIDTH else line[: SNIPPET_WIDTH - 1] + "…"
            for line in lines
        )
    )


def closing(facts: dict[str, Any], output: Path) -> Text:
    """What was made and where."""
    counts, correct = facts["functions"], facts["accuracy"]
    models = ", ".join(f"{name} {correct[name]:.1%}" for name in facts["models"])
    return Text(
        f"Learned from {counts['train']} functions, tested on {counts['test']} of "
        f"{len(facts['modules']['test'])} other modules: {models}, "
        f"majority {correct['majority']:.1%}.\n"
        f"Served {facts['served']['answers']} answers without TensorFlow, equal to Keras's to "
        f"{facts['served']['largest_difference']:.0e}. All of it took {facts['seconds']:.0f} s.\n"
        f"In {output}:\n"
        "  models/                what was served: NAME/1/model.onnx\n"
        "  keras/                 the same models as NAME.keras\n"
        "  labels.json            the words and verbs behind the numbers\n"
        "  accuracy.png, learning_curves.png, confusion_matrix.png\n"
        "  summary.json           all figures\n"
        f"Serve them again: keras-blocks serve {output / 'models'}"
    )
