"""What the example prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from batches import BINARY, FINE
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text
from scores import Score
from treebank import NAMES, Treebank

from keras_blocks.export import ExportResult
from keras_blocks.export.reports.report import size_text

MECHANICS_ONLY = (
    "These few sentences were written for this example: they show the mechanics only, and the "
    "accuracies below say nothing. For a result, give the treebank's folder as --data."
)


def sizes(bank: Treebank) -> Table:
    """How many sentences and nodes each part has, and how they are labelled."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "sentences", "nodes", *NAMES):
        table.add_column(heading, justify="right" if heading else "left")
    for name, part in bank.parts.items():
        roots = Counter(sentence.labels[0] for sentence in part)
        nodes = sum(len(sentence.labels) for sentence in part)
        counts = (f"{roots[label]:,}" for label in range(len(NAMES)))
        table.add_row(name, f"{len(part):,}", f"{nodes:,}", *counts)
    return table


def accuracies(candidates: list[Any], guesses: dict[str, Score]) -> Group:
    """All models in all classes, on dev and test, beside the majority class."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "judged in"):
        table.add_column(heading, no_wrap=True)
    for part in ("dev", "test"):
        for of in ("sentences", "all nodes"):
            table.add_column(f"{part}: {of}", justify="right")
    for name, guess in guesses.items():
        shares = (f"{guess.root:.1%}", f"{guess.nodes:.1%}")
        table.add_row("majority of the training sentences", name, "", "", *shares)
    for candidate in candidates:
        for name in candidate.scores["test"]:
            dev, test = (candidate.scores[part][name] for part in ("dev", "test"))
            shares = (f"{share:.1%}" for one in (dev, test) for share in (one.root, one.nodes))
            trained = candidate.trained
            model = f"{candidate.task.name}, epoch {trained.best_epoch} of {len(trained.dev)}"
            table.add_row(model, name, *shares, style="bold")
    return Group(table, Text(_how_binary(len(candidates) > 1)))


def _how_binary(apart: bool) -> str:
    text = (
        f"In {BINARY.name} classes the neutral sentences and nodes are left out, and the "
        f"{FINE.name} model judges by the sum of both negative against that of both positive "
        "classes."
    )
    return text + (f" The {BINARY.name} model was trained apart, without them." if apart else "")


def exported(name: str, result: ExportResult) -> Text:
    """What is in a file, and how it was proven."""
    proof = result.parity
    return Text(
        f"{name}: {size_text(result.size_bytes)}, {sum(result.op_counts.values())} nodes; equal to "
        f"Keras on {proof.samples} samples of different shapes, largest error {proof.max_error:.1e}"
    )


def exported_facts(result: ExportResult) -> dict[str, Any]:
    """The same for machines."""
    return {
        "onnx": result.filepath,
        "onnx_bytes": result.size_bytes,
        "onnx_ops": result.op_counts,
        "proof": result.parity.summary(),
    }


def alone(facts: dict[str, Any], worst: float, same: bool) -> Text:
    """What onnxruntime said without TensorFlow."""
    rate = facts["sentences"] / facts["seconds"]
    return Text(
        f"onnxruntime alone judged all {facts['sentences']:,} test sentences ({facts['nodes']:,} "
        f"nodes) in {facts['seconds']:.2f} s on one thread, {rate:,.0f} trees/s: "
        + ("the same class at every node" if same else "the same but where two classes tie")
        + f", largest difference of a probability {worst:.1e}."
    )


def closing(facts: dict[str, Any], mechanics_only: bool, output: Path) -> Text:
    """What came out and where it lies."""
    lines = [MECHANICS_ONLY] if mechanics_only else []
    for name, model in facts["models"].items():
        said = ", ".join(
            f"{judged} {one['root']:.1%}" for judged, one in model["scores"]["test"].items()
        )
        lines.append(f"The {name} model on whole test sentences: {said}.")
    lines += [
        f"All of it took {facts['seconds']:.0f} s. In {output}:",
        "  parses.html     test sentences as trees, coloured by the sentiment of each node",
        "  models/         the exported files: NAME/1/model.onnx",
        "  keras/          the same models as NAME.keras",
        "  words.json      word i of the list has the number i + 1, words that are not there 0",
        "  summary.json    all figures",
        f"Serve them: keras-blocks serve {output / 'models'}",
    ]
    return Text("\n".join(lines))
