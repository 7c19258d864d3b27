"""Exported files raced under onnxruntime, and the exporters against each other.

    python benchmarks/export_speed.py                  # all, about half an hour
    python benchmarks/export_speed.py --only LSTM      # the cases with LSTM in their name
    python benchmarks/export_speed.py --quick          # few rounds, to see it run
    python benchmarks/export_speed.py --skip-exports   # how fast the files are, not the exporters
    python benchmarks/export_speed.py --write-docs     # docs/export_speed.md from the saved results

The contestants of a case compute the same model: our file, the stock exporter's
(`model.export(format="onnx")`), plain tf2onnx's, a graph written by hand where there is one, and
TensorFlow itself (`tf.function`, no XLA). Each is compared with Keras first; what has no file, or a
wrong one, is listed as such. One thread; all run in turn, round after round. A ratio is ours by
the other's: the median over the rounds, and in brackets that of the least times.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import click
import keras
import numpy as np
import onnxruntime
import tensorflow as tf
from blocks import PACKAGES, one_thread
from conformance_exporters import EXPORTERS
from export_speed_cases import CASES, Case
from export_speed_hand import BY_HAND
from export_speed_report import HAND, OURS, PROVEN, STOCK, TENSORFLOW, TF2ONNX, Row, line, report
from harness import RESULTS, RUNS, describe, in_turns, save, surroundings
from one_thread import session_options
from rich.console import Console
from rounds import clock, rounds

DOCS = Path(__file__).parent.parent / "docs"
# Whether it is the same function at all; rounding differs by engine.
SAME = {"rtol": 1e-3, "atol": 1e-3}
EXPORT_ROUNDS = 5
QUIET = 4  # onnxruntime's log level; what it says is in the table


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", default="", help="Only the cases with this in their name.", metavar="NAME")
@click.option("--quick", is_flag=True, help="5 rounds, 2 exports: only to see it run.")
@click.option("--rounds", "runs", default=RUNS, show_default=True, help="Rounds of each case.")
@click.option("--skip-exports", is_flag=True, help="Do not time the exporters.")
@click.option("--write-docs", is_flag=True, help="Write docs/export_speed.md, run nothing.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
def main(
    only: str, quick: bool, runs: int, skip_exports: bool, write_docs: bool, output: Path
) -> None:
    """Race exported files under onnxruntime, and our exporter against the stock one.

    \b
    ours       export_onnx(model, path)
    stock      model.export(path, format="onnx")
    tf2onnx    tf2onnx.convert.from_function
    by hand    a graph that a person would write
    tensorflow tf.function of the model

    Below 1 we are faster. The goals: no slower than the best of stock and tf2onnx; within 10% of
    the graph by hand; an export within 1.5 times the stock exporter's time, 3 times with proof.
    """
    console = Console()
    if write_docs:
        write(output, DOCS, console)
        return
    cases = [case for case in CASES if only.lower() in case.name.lower()]
    if not cases:
        raise click.ClickException(f"no case has {only!r} in its name")
    one_thread()
    facts = surroundings(PACKAGES)
    console.print(describe(facts), highlight=False, soft_wrap=True)
    rows = []
    for case in cases:
        row = measured(case, 5 if quick else runs)
        if not skip_exports:
            row.exports.update(exports(case, 2 if quick else EXPORT_ROUNDS))
        rows.append(row)
        console.print(line(row), highlight=False, soft_wrap=True)
    record = {"surroundings": facts, "rows": rows}
    paths = save("export_speed", record, report(rows, facts), output)
    console.print(f"Saved {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)


def measured(case: Case, runs: int) -> Row:
    """How fast each contestant runs the case."""
    keras.utils.clear_session()
    model, inputs = case.made()
    expected = np.asarray(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    row = Row(case.name)
    contestants: dict[str, Callable[[], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files(case, model, Path(folder)).items():
            if isinstance(content, str):
                row.absent[name] = content
                continue
            try:
                contestants[name] = session(content, inputs, expected)
            except Exception as error:  # files of others fail in many ways
                row.absent[name] = _first_line(error)
    given = [tf.constant(value) for value in inputs]
    traced = tf.function(lambda: model(given if len(given) > 1 else given[0], training=False))
    contestants[TENSORFLOW] = traced
    row.seconds.update(rounds({name: clock(run) for name, run in contestants.items()}, runs))
    return row


def files(case: Case, model: keras.Model, folder: Path) -> dict[str, bytes | str]:
    """The file of each contestant, or why there is none."""
    contents: dict[str, bytes | str] = {}
    for name, exporter in ((OURS, "ours"), (STOCK, "stock"), (TF2ONNX, "tf2onnx")):
        path = folder / f"{exporter}.onnx"
        try:
            export(exporter, model, path)
            contents[name] = path.read_bytes()
        except Exception as error:  # exporters fail in many ways
            contents[name] = _first_line(error)
    if case.by_hand:
        contents[HAND] = BY_HAND[case.by_hand](model)
    return contents


def session(content: bytes, inputs: list[np.ndarray], expected: np.ndarray) -> Callable[[], Any]:
    """A file as a function of nothing, after a look whether it computes the right thing."""
    options = session_options()
    options.log_severity_level = QUIET
    running = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in running.get_inputs()]
    feeds = dict(zip(names, inputs, strict=True))
    np.testing.assert_allclose(running.run(None, feeds)[0], expected, **SAME)
    return lambda: running.run(None, feeds)


def exports(case: Case, runs: int) -> dict[str, list[float]]:
    """The seconds of each export, of ours also with the proof."""
    keras.utils.clear_session()
    model, _ = case.made()
    taken: dict[str, Callable[[], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, exporter in ((OURS, "ours"), (PROVEN, "proven"), (STOCK, "stock")):
            taken[name] = _export_clock(exporter, model, Path(folder, f"{exporter}.onnx"))
        works = {}
        for name, measure in taken.items():
            try:
                measure()  # the first of each loads and caches what the others find ready
                works[name] = measure
            except Exception:  # the reason is among those of the files
                continue
        return dict(zip(works, in_turns(list(works.values()), runs), strict=True))


def _export_clock(exporter: str, model: keras.Model, path: Path) -> Callable[[], float]:
    def measure() -> float:
        start = time.perf_counter()
        export(exporter, model, path)
        return time.perf_counter() - start

    return measure


def export(exporter: str, model: keras.Model, path: Path) -> None:
    """A file by one of the exporters, in quiet."""
    logging.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            EXPORTERS[exporter](model, path)
    finally:
        logging.disable(logging.NOTSET)


def write(results: Path, docs: Path, console: Console) -> Path:
    """The saved results as a page of the documentation."""
    record: Mapping[str, Any] = json.loads((results / "export_speed.json").read_text())
    page = docs / "export_speed.md"
    page.write_text(report([Row(**row) for row in record["rows"]], record["surroundings"]))
    console.print(f"Wrote {page}", highlight=False, soft_wrap=True)
    return page


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:120]


if __name__ == "__main__":
    main()
