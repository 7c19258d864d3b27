"""Every backbone and task of KerasHub, small and with random weights, exported and compared.

    python benchmarks/hub.py                        # our exporter, with its proof
    python benchmarks/hub.py --exporter stock       # Keras's own beside it
    python benchmarks/hub.py --only Llama           # the models with Llama in their name
    python benchmarks/hub.py --markdown docs/conformance_keras_hub.md

A worker process does the models one by one, so that one that crashes or hangs ends alone. What is
done is kept; a second run does only the rest.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import hub_trials
from conformance_report import RIGHT, STYLES
from conformance_worker import Task, Worker
from harness import RESULTS, describe, markdown_table, surroundings
from rich.console import Console

PACKAGES = ("keras", "keras-hub", "tensorflow", "tf2onnx", "onnxruntime", "keras-blocks")
SECONDS = 300.0
EXPORTERS = (hub_trials.OURS, hub_trials.STOCK)
_NOT_RUN = "not run"
Results = dict[Task, dict]
_ABOUT = (
    "Every backbone and every task of KerasHub, in a small size with random weights. *Right*: "
    '`export_onnx` has proven the file (`verify="fast"`); the stock exporter\'s file was run on '
    "three samples. A *step* is a causal language model's step with its cache, a *loop* its whole "
    "greedy generation (`decoding_step`, `generation_loop`). Models whose code asks in Python for "
    "the length of its inputs, or whose inputs must fit together, were given fixed sizes.\n\n"
    "Written by `python benchmarks/hub.py --only-tables --markdown docs/conformance_keras_hub.md`."
)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", metavar="TEXT", help="Models with this in their name.")
@click.option("--exporter", type=click.Choice(EXPORTERS), default="ours")
@click.option("--again-unless-right", is_flag=True, help="Do those again that were not right.")
@click.option("--only-tables", is_flag=True, help="Do nothing, show what is done.")
@click.option("--limit", default=SECONDS, show_default=True, help="Seconds for a model.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS / "hub.jsonl")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Write the table there.")
def main(
    only: str,
    exporter: str,
    again_unless_right: bool,
    only_tables: bool,
    limit: float,
    results: Path,
    page: Path | None,
) -> None:
    """Export every model of KerasHub and see what onnxruntime makes of the files."""
    console, done = Console(), load(results)
    worker = Worker(limit, hub_trials.serve)
    try:
        names = [facts["case"] for facts in worker.cases()]
        for name in names if not only_tables else ():
            task = Task(name, "", exporter)
            kept = task in done and not (again_unless_right and done[task]["status"] != RIGHT)
            if only.lower() in name.lower() and not kept:
                done[task] = worker.attempt(task)
                keep(results, task, done[task])
                show(console, name, done[task])
    finally:
        worker.stop()
    if page is not None:
        page.write_text(markdown(names, done))
        console.print(f"Wrote {page}", highlight=False)


def load(path: Path) -> Results:
    """The results so far; of a task that was done again the last."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return {Task(row["case"], "", row["exporter"]): row for row in rows}


def keep(path: Path, task: Task, outcome: dict) -> None:
    """Adds a result to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"case": task.case, "exporter": task.exporter, **outcome}) + "\n")


def show(console: Console, name: str, outcome: dict) -> None:
    """One line about a model that is done."""
    style = STYLES.get(outcome["status"], "red")
    console.print(f"{name}: [{style}]{outcome['status']}[/] {outcome['seconds']} s", end=" ")
    console.print(outcome["reason"][:200], markup=False, highlight=False)


def markdown(names: list[str], done: Results) -> str:
    """The outcomes of both exporters side by side, and the reasons of what is not right."""
    rows, reasons = [], []
    for name in names:
        outcomes = [done.get(Task(name, "", exporter)) for exporter in EXPORTERS]
        rows.append([name, *(_NOT_RUN if o is None else o["status"] for o in outcomes)])
        if outcomes[0] is not None and outcomes[0]["reason"]:
            reasons.append(f"- {name}: {' '.join(outcomes[0]['reason'].split())[:300]}")
    shares = []
    for column in (1, 2):
        statuses = [row[column] for row in rows if row[column] != _NOT_RUN]
        shares.append(f"{statuses.count(RIGHT)} of {len(statuses)}")
    rows.insert(0, ["all that were run", *shares])
    headings = ["model", "`export_onnx`", '`model.export(format="onnx")`']
    parts = ["# KerasHub\n", describe(surroundings(PACKAGES)) + "\n", _ABOUT + "\n"]
    parts.append(markdown_table(headings, rows))
    if reasons:
        parts += ["## What `export_onnx` leaves\n", "\n".join(reasons)]
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    main()
