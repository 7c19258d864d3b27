"""The peers of the tree benchmark: their environments, and the processes that they run in."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tree_models import FEATURES, targets
from tree_samples import Forest

WORKERS = Path(__file__).parent / "peer_workers"


@dataclass(frozen=True)
class Environment:
    """A Python of its own, and the peers that run in it.

    Args:
        peers: their names by the file in `peer_workers` that runs them.
        installs: what pip installs, call by call.
    """

    peers: dict[str, str]
    installs: Sequence[Sequence[str]]


ENVIRONMENTS = {
    "pytorch": Environment(
        {"level_batched": "level-batched PyTorch", "tree_lstm_package": "pytorch-tree-lstm"},
        [["torch==2.13.0", "numpy==2.4.6", "pytorch-tree-lstm==0.1.3"]],
    ),
    "dgl": Environment(
        {"dgl_messages": "DGL"},
        [
            ["torch==2.13.0", "dgl==1.1.3", "numpy==1.26.4", "packaging==25.0"],
            # DGL 1.1.3 takes from setuptools what later ones no longer have. pip warns that
            # PyTorch asks for a later one; it does so only for compiling extensions.
            ["setuptools==69.5.1"],
        ],
    ),
    "dynet": Environment({"dynet_autobatch": "DyNet"}, [["dynet38==2.2", "numpy==2.4.6"]]),
}


def set_up(folder: Path) -> dict[str, Path]:
    """Makes the environments of all peers; those that are there already stay as they are."""
    pythons = {}
    for name, environment in ENVIRONMENTS.items():
        pythons[name] = python_in(folder / name)
        if pythons[name].exists():
            continue
        venv.create(folder / name, with_pip=True)
        for packages in environment.installs:
            subprocess.run(
                [pythons[name], "-I", "-m", "pip", "install", "--quiet", *packages], check=True
            )
    return pythons


def python_in(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


class Worker:
    """A peer in a process of its own, which waits without work between its turns.

    Raises:
        PeerError: it does not start, or fails at what it was asked.
    """

    def __init__(self, file: str, name: str, python: Path, log: Path):
        self.name = name
        single = {f"{kind}_NUM_THREADS": "1" for kind in ("OMP", "MKL", "OPENBLAS")}
        with log.open("w") as errors:
            try:
                self._process = subprocess.Popen(
                    [python, WORKERS / "worker.py", file],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env={**os.environ, **single, "DGLBACKEND": "pytorch"},
                )
            except OSError as error:
                raise PeerError(f"{name}: {python} does not start: {error.strerror}.") from error
        try:
            about = self._ask(do="hello")
        except PeerError:
            self.close()
            raise
        self.versions: dict[str, str] = about["versions"]
        self.cells: list[str] = about["cells"]

    def load(self, path: Path, cell: str, training: bool) -> np.ndarray:
        """Makes the batches of the file ready; gives the roots of all trees."""
        self._ask(do="load", path=str(path), cell=cell, training=training)
        return np.load(f"{path}.roots.npy")

    def __call__(self, calls: int, task: str = "step") -> float:
        """The seconds of a call: a step of the model, or what it takes to "prepare" the batches."""
        return self._ask(do="run", task=task, calls=calls)["seconds"]

    def close(self) -> None:
        """Ends the process."""
        with suppress(BrokenPipeError):  # it has ended by itself
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"it ended ({self._process.wait()})"}
        if "error" in answer:
            raise PeerError(f"{self.name}: {answer['error']}")
        return answer


class PeerError(Exception):
    """A peer that cannot take part."""


def store(batches: Sequence[Forest], weights: dict[str, np.ndarray], path: Path) -> None:
    """The batches and the weights as a file that every peer can read."""
    arrays: dict[str, Any] = {"batches": len(batches)}
    for place, batch in enumerate(batches):
        arrays[f"features {place}"] = batch.features(FEATURES)
        arrays[f"parents {place}"] = batch.global_parents
        arrays[f"splits {place}"] = batch.row_splits
        arrays[f"level {place}"] = batch.level
        arrays[f"targets {place}"] = targets(batch)
    np.savez(path, **arrays, **{f"weight {name}": value for name, value in weights.items()})
