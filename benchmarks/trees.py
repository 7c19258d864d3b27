"""Tree-LSTMs beside the physical limit and the peers: exported files, training, any shape of tree.

    python benchmarks/trees.py --setup-peers peers      # makes the peers' environments there, once
    python benchmarks/trees.py --peers peers            # all, about half an hour
    python benchmarks/trees.py --peer pytorch=PYTHON    # a peer's Python that is somewhere else
    python benchmarks/trees.py --quick                  # fewer rounds and sizes, to see it run
    python benchmarks/trees.py --only training          # what has this in its name
    python benchmarks/trees.py --write-docs             # docs/trees.md from the saved results

The limit is the time of the matrix products that the formulas need, alone, in the engine that ours
runs in: `tree_limit` says exactly which. One thread, medians of interleaved rounds. The peers run
in processes of their own, in turn with ours: PyTorch level by level, pytorch-tree-lstm, DGL, DyNet.
All get the same trees and weights; one whose roots differ from ours stops the benchmark.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import click
import tree_memory
import tree_models
from blocks import PACKAGES, one_thread
from harness import RESULTS, RUNS, describe, save, surroundings
from rich.console import Console
from tree_contests import Arena, Contest, programme
from tree_memory import Memory
from tree_peers import ENVIRONMENTS, PeerError, Worker, python_in, set_up
from tree_plots import plot
from tree_report import line, report, verdicts

DOCS = Path(__file__).parent.parent / "docs"
ENVIRONMENT_NAMES = ", ".join(ENVIRONMENTS)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="5 rounds, few sizes: only to see it run.")
@click.option("--rounds", default=RUNS, show_default=True, help="At most so many of each contest.")
@click.option("--only", default="", help="Only what has this in its name.", metavar="NAME")
@click.option(
    "--peer", "given", multiple=True, metavar="NAME=PYTHON",
    help=f"The Python that has a peer; names are {ENVIRONMENT_NAMES}.",
)  # fmt: skip
@click.option("--peers", "folder", type=click.Path(path_type=Path), help="Made by --setup-peers.")
@click.option(
    "--setup-peers", "setup", type=click.Path(path_type=Path), metavar="DIR",
    help="Makes the peers' environments there with pip, and does nothing else.",
)  # fmt: skip
@click.option("--write-docs", is_flag=True, help="Writes docs/trees.md from the saved results.")
@click.option("--output", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
def main(
    quick: bool,
    rounds: int,
    only: str,
    given: tuple[str, ...],
    folder: Path | None,
    setup: Path | None,
    write_docs: bool,
    output: Path,
) -> None:
    """Race Tree-LSTMs against the limit and against the peers."""
    console = Console()
    if setup:
        for name, python in set_up(setup).items():
            console.print(f"{name}: {python}", highlight=False, soft_wrap=True)
        return
    if write_docs:
        write(output, DOCS, console)
        return
    one_thread()
    pythons = {name: python_in(folder / name) for name in ENVIRONMENTS} if folder else {}
    pythons |= named(given)
    entries = [entry for entry in programme(quick) if only.lower() in entry.name.lower()]
    shapes = [s for s in tree_memory.SHAPES if only.lower() in f"memory, {s}"]
    if not entries and not shapes:
        raise click.ClickException(f"no contest has {only!r} in its name")
    with tempfile.TemporaryDirectory() as temporary:
        workers = start(pythons, Path(temporary), console)
        try:
            arena = Arena(workers, 5 if quick else rounds, Path(temporary))
            facts = surroundings(PACKAGES)
            for worker in workers:
                facts["packages"] |= worker.versions
            console.print(describe(facts), highlight=False, soft_wrap=True)
            contests = []
            for entry in entries:
                contests.append(entry.run(arena))
                console.print(line(contests[-1]), highlight=False, soft_wrap=True)
        finally:
            for worker in workers:
                worker.close()
        memories = remember(shapes, quick, Path(temporary), console)
    record = {
        "surroundings": facts, "runs": arena.runs, "contests": contests, "memories": memories,
    }  # fmt: skip
    paths = save("trees", record, report(contests, memories, facts, arena.runs), output)
    paths.append(plot(contests, memories, output / "trees.png"))
    console.print(verdicts(contests, memories), highlight=False, soft_wrap=True)
    console.print(f"Saved {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)


def named(given: Iterable[str]) -> dict[str, Path]:
    """The Pythons of `--peer NAME=PYTHON`."""
    pythons = {}
    for text in given:
        name, _, python = text.partition("=")
        if name not in ENVIRONMENTS or not python:
            raise click.BadParameter(
                f"received {text!r}, expected NAME=PYTHON with a name of {ENVIRONMENT_NAMES}."
            )
        pythons[name] = Path(python)
    return pythons


def start(pythons: dict[str, Path], folder: Path, console: Console) -> list[Worker]:
    """The peers whose Python was given and has them; a sentence about each of the others."""
    workers = []
    for name, environment in ENVIRONMENTS.items():
        for file, peer in environment.peers.items():
            if name not in pythons:
                console.print(f"{peer} does not take part: no --peer {name}=PYTHON was given.")
                continue
            try:
                workers.append(Worker(file, peer, pythons[name], folder / f"{file}.log"))
            except PeerError as error:
                console.print(f"{peer} does not take part. {error}", soft_wrap=True)
    return workers


def remember(shapes: Sequence[str], quick: bool, folder: Path, console: Console) -> list[Memory]:
    """How memory grows with the nodes."""
    if not shapes:
        return []
    if not tree_memory.available():
        console.print("Memory is not measured: this system has no /proc/self/clear_refs.")
        return []
    path = folder / "memory.onnx"
    tree_models.session(tree_models.tree_lstm("child-sum"), path)
    sizes = tree_memory.QUICK_SIZES if quick else tree_memory.SIZES
    memories = []
    for kind in ("file", "training"):
        for shape in shapes:
            memories.append(tree_memory.measured(kind, path, shape, sizes))
            text = f"memory, {kind}, {shape}: {memories[-1].per_node():.1f} kB a node"
            console.print(text, highlight=False)
    return memories


def write(results: Path, docs: Path, console: Console) -> None:
    """The saved results as a page of the documentation."""
    record: dict[str, Any] = json.loads((results / "trees.json").read_text())
    contests = [Contest(**contest) for contest in record["contests"]]
    memories = [Memory(**memory) for memory in record["memories"]]
    text = report(contests, memories, record["surroundings"], record["runs"])
    page, picture = docs / "trees.md", plot(contests, memories, docs / "trees.png")
    page.write_text(f"{text}\n![Cost of a node, and memory](trees.png)\n")
    console.print(f"Wrote {page} and {picture}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
