"""An epoch of examples/sentiment_trees beside level-batched PyTorch twins, in turn, in one run.

    python benchmarks/sentiment_epoch.py --data FOLDER --torch-python PATH

All get the same trees in the same batches, the same model, optimizers and rates;
`sentiment_twin.py` says what the two twins are. `sentiment_products.py` runs along: TensorFlow's
products alone, which is how far ours could go.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from harness import RESULTS, Timing, describe, markdown_table, save, surroundings

HERE = Path(__file__).parent
EXAMPLE = HERE.parent / "examples" / "sentiment_trees"
TWINS = ("height", "depth")
PRODUCTS = "products"
GOAL = 0.7
EPOCHS = 5
# The first epoch traces and compiles, the second still finds new sizes of batches.
WARM_UPS = 2


class Racer:
    """A program that runs an epoch each time it is asked."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.facts = self._answer()

    def epoch(self) -> dict[str, float]:
        """The seconds and the loss of the next epoch."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            command = " ".join(map(str, self.process.args))
            raise click.ClickException(f"`{command}` ended with {self.process.wait()}.")
        return json.loads(line)


@contextmanager
def racer(threads: int, *command: str | Path) -> Iterator[Racer]:
    """Starts one of the programs, and ends it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:  # fmt: skip
        try:
            yield Racer(process)
        finally:
            process.kill()


def record_of(folder: Path, batch: int, limit: int | None, path: Path) -> dict[str, Any]:
    """Writes what both programs learn from, and how; gives the sizes."""
    sys.path.insert(0, str(EXAMPLE))
    from encoding import flat_inputs
    from treebank import NAMES, read_treebank, vocabulary

    sentences = read_treebank(folder, limit).train
    known = vocabulary(sentences)
    flat = flat_inputs(sentences, known)
    order = np.random.default_rng(0).permutation(len(sentences))
    sizes = {
        "words": len(known), "embedded": 300, "hidden": 150, "classes": len(NAMES), "dropout": 0.5,
    }  # fmt: skip
    np.savez(
        path,
        words=flat["words"],
        word_splits=flat["words.row_splits"],
        parents=flat["parents"],
        node_splits=flat["parents.row_splits"],
        classes=np.array([label for one in sentences for label in one.labels], "int32"),
        order=order,
        batch=batch,
        batch_ends=np.arange(batch, len(order), batch),
        sizes=json.dumps(sizes),
        rates=json.dumps({"weights": 0.05, "words": 0.1, "decay": 1e-4}),
    )
    return {"sentences": len(sentences), "nodes": len(flat["parents"]), "batch": batch, **sizes}


def contest(record: Path, torch_python: str, threads: int, epochs: int) -> dict[str, Any]:
    """Epochs of all in turn; each round starts with the next, every other one goes backwards."""
    given = [str(record), str(threads)]
    commands = {"ours": [sys.executable, HERE / "sentiment_ours.py", *given]}
    commands |= {twin: [torch_python, HERE / "sentiment_twin.py", *given, twin] for twin in TWINS}
    commands[PRODUCTS] = [sys.executable, HERE / "sentiment_products.py", *given]
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    with ExitStack() as stack:
        racers = {
            name: stack.enter_context(racer(threads, *command))
            for name, command in commands.items()
        }
        for one in racers.values():
            for _ in range(WARM_UPS):
                one.epoch()
        names = list(racers)
        for turn in range(epochs):
            start = turn % len(names)
            order = names[start:] + names[:start]
            for name in order if turn % 2 == 0 else reversed(order):
                taken[name].append(racers[name].epoch())
        torch = racers[TWINS[0]].facts["torch"]
    columns = {
        name: {key: [one[key] for one in done] for key in done[0]} for name, done in taken.items()
    }
    return {
        "threads": threads,
        "torch": torch,
        "epochs": columns,
        "seconds": {name: Timing.of(column["seconds"]) for name, column in columns.items()},
        "ratios": {twin: _ratio(columns, twin, "seconds") for twin in TWINS},
        "cpu_ratios": {twin: _ratio(columns, twin, "cpu") for twin in TWINS},
        "product_ratios": {twin: _ratio(columns, twin, "seconds", PRODUCTS) for twin in TWINS},
    }


def _ratio(
    columns: dict[str, dict[str, list[float]]], twin: str, key: str, name: str = "ours"
) -> Timing:
    pairs = zip(columns[name][key], columns[twin][key], strict=True)
    return Timing.of([one / other for one, other in pairs])


def report(facts: dict[str, Any], sizes: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """The table, and whether the goal is met."""
    headings = [
        "threads, twin", "ours", "twin", "ratio", "of processor time", "products alone",
        "products by twin", "our trees/s", "last losses",
    ]  # fmt: skip
    rows = [_row(one, twin, sizes["sentences"]) for one in results for twin in TWINS]
    missed = [
        f"{one['threads']} threads, by {twin}"
        for one in results
        for twin in TWINS
        if one["ratios"][twin].median > GOAL
    ]
    verdict = f"missed ({'; '.join(missed)})" if missed else "met"
    return (
        f"# An epoch of the sentiment treebank\n\n{describe(facts)} "
        f"torch {results[0]['torch']}.\n\n{sizes['sentences']} sentences, {sizes['nodes']} nodes, "
        f"batches of {sizes['batch']}; binary Tree-LSTM, {sizes['embedded']} inputs, "
        f"{sizes['hidden']} hidden, scores at every node, Adagrad, word vectors by sparse descent. "
        "The levels of the PyTorch twins are found before the clock runs, ours while it runs. "
        "*Products alone*: the matrix products of the formulas and their gradients in TensorFlow, "
        "without which ours cannot do.\n\n"
        f"{markdown_table(headings, rows)}\n"
        f"Goal: at most {GOAL} of the twin's time: {verdict}.\n"
    )


def _row(one: dict[str, Any], twin: str, sentences: int) -> list[str]:
    ratio, ours = one["ratios"][twin], one["seconds"]["ours"].median
    return [
        f"{one['threads']}, by {twin}",
        f"{ours:.2f} s",
        f"{one['seconds'][twin].median:.2f} s",
        f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        f"{one['cpu_ratios'][twin].median:.2f}",
        f"{one['seconds'][PRODUCTS].median:.2f} s",
        f"{one['product_ratios'][twin].median:.2f}",
        f"{sentences / ours:,.0f}",
        " / ".join(f"{one['epochs'][name]['loss'][-1]:.2f}" for name in ("ours", twin)),
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
    help="Folder with the treebank's train.txt, dev.txt and test.txt.",
)  # fmt: skip
@click.option(
    "--torch-python", type=click.Path(exists=True, dir_okay=False), required=True,
    help="A Python that has torch and numpy.",
)  # fmt: skip
@click.option("--epochs", default=EPOCHS, show_default=True, type=click.IntRange(2))
@click.option(
    "--threads",
    type=click.IntRange(1),
    multiple=True,
    default=sorted({1, os.cpu_count() or 1}),
    show_default="1, and all cores",
    help="Of each program; may be given several times.",
)
@click.option("--batch", default=25, show_default=True, type=click.IntRange(1))
@click.option("--limit", type=click.IntRange(1), help="Only the first so many sentences.")
@click.option(
    "--output", default=RESULTS, type=click.Path(file_okay=False, path_type=Path),
    show_default="benchmarks/results",
)  # fmt: skip
def main(
    data: Path,
    torch_python: str,
    epochs: int,
    threads: tuple[int, ...],
    batch: int,
    limit: int | None,
    output: Path,
) -> None:
    """Race an epoch of the sentiment example against level-batched PyTorch twins.

    On a machine that is busy otherwise believe the ratio of processor time, for one thread.
    """
    facts = surroundings(["tensorflow", "keras", "numpy"])
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.npz"
        sizes = record_of(data, batch, limit, record)
        results = []
        for count in threads:
            click.echo(f"{count} threads: {WARM_UPS} + {epochs} epochs each ...", err=True)
            results.append(contest(record, torch_python, count, epochs))
    text = report(facts, sizes, results)
    save("sentiment_epoch", {**facts, **sizes, "results": results}, text, output)
    click.echo(text)


if __name__ == "__main__":
    main()
