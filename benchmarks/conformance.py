"""Every layer case of Keras's own tests, exported, and compared with Keras under onnxruntime.

    python benchmarks/conformance.py                     # our exporter, all cases (half an hour)
    python benchmarks/conformance.py --only GRU          # the cases with GRU in layer or test
    python benchmarks/conformance.py --exporter all      # the stock exporter and tf2onnx too
    python benchmarks/conformance.py --exporter proven   # ours, with the proof of every file
    python benchmarks/conformance.py --markdown docs/conformance.md

Every case is exported with a free batch, with free time or space too where the layer allows, and in
mixed_float16; and runs at several batch sizes and lengths. A worker process does the cases one by
one, so that one that crashes or hangs ends alone. What is done is kept; a second run does only the
rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from conformance_report import RIGHT, TITLES, Result, markdown, summary, troubles
from conformance_worker import Task, Worker
from harness import RESULTS, surroundings
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EXPORTERS = ("ours", "stock", "tf2onnx")
PACKAGES = ("keras", "tensorflow", "tf2onnx", "onnx", "onnxruntime", "keras-blocks")
SECONDS = 90.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", metavar="TEXT", help="Cases with this in layer, group or test.")
@click.option("--exporter", type=click.Choice([*EXPORTERS, "proven", "all"]), default="ours")
@click.option("--again", is_flag=True, help="Do the chosen cases again, also those that are done.")
@click.option("--again-unless-right", is_flag=True, help="Do those again that were not right.")
@click.option("--only-tables", is_flag=True, help="Do nothing, show what is done.")
@click.option("--limit", default=SECONDS, show_default=True, help="Seconds for a case.")
@click.option("--results", type=click.Path(path_type=Path), default=RESULTS / "conformance.jsonl")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Write the tables there.")
@click.option("--show-all", is_flag=True, help="List the refused cases too, not only the faults.")
def main(
    only: str,
    exporter: str,
    again: bool,
    again_unless_right: bool,
    only_tables: bool,
    limit: float,
    results: Path,
    page: Path | None,
    show_all: bool,
) -> None:
    """Export every layer case of Keras's tests and see what onnxruntime makes of the files."""
    console = Console()
    exporters = EXPORTERS if exporter == "all" else (exporter,)
    done = load(results)
    worker = Worker(limit)
    try:
        cases = worker.cases()
        chosen = [facts for facts in cases if _is_chosen(facts, only)]
        if not chosen:
            raise click.ClickException(f"no case has {only!r} in its layer, group or test")
        tasks = list(tasks_of(chosen, exporters))
        left = {
            task: facts
            for task, facts in tasks
            if again or task not in done or (again_unless_right and done[task].status != RIGHT)
        }
        if not only_tables:
            run(worker, left, done, results, console)
    finally:
        worker.stop()
    # The facts may be newer than a result that was kept.
    shown = [replace(done[task], **facts) for task, facts in tasks if task in done]
    console.print(summary(shown))
    console.print(troubles(shown, show_all))
    if page is not None:
        page.write_text(markdown(shown, surroundings(PACKAGES)))
        console.print(f"Wrote {page}", highlight=False)


def run(
    worker: Worker,
    left: dict[Task, dict[str, Any]],
    done: dict[Task, Result],
    path: Path,
    console: Console,
) -> None:
    """Does the tasks, and keeps each result as soon as it is there."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[at]}"),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("", total=len(left), at="")
        for task, facts in left.items():
            progress.update(bar, at=f"{task.exporter} {facts['layer']} {task.variant}")
            result = Result(
                **facts, variant=task.variant, exporter=task.exporter, **worker.attempt(task)
            )
            done[task] = result
            with path.open("a") as file:
                file.write(json.dumps(vars(result)) + "\n")
            progress.advance(bar)


def load(path: Path) -> dict[Task, Result]:
    """The results so far; of a task that was done again the last."""
    if not path.exists():
        return {}
    results = [Result(**json.loads(line)) for line in path.read_text().splitlines() if line]
    return {Task(r.case, r.variant, r.exporter): r for r in results}


def tasks_of(
    cases: list[dict[str, Any]], exporters: tuple[str, ...]
) -> Iterator[tuple[Task, dict[str, Any]]]:
    """All that is to be done, with the facts of the case."""
    for exporter in exporters:
        for facts in cases:
            for variant in TITLES:
                yield Task(facts["case"], variant, exporter), facts


def _is_chosen(facts: dict[str, Any], only: str) -> bool:
    return any(only.lower() in facts[key].lower() for key in ("case", "group", "layer"))


if __name__ == "__main__":
    main()
