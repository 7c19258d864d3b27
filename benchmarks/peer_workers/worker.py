"""Runs one peer in the peer's own Python; `tree_peers.Worker` talks to it.

    python worker.py level_batched

Each line of the input is a request in JSON, each line of the output the answer. Only NumPy and the
peer are needed here: nothing of ours.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

import numpy as np

WARM_UPS = 3


def main() -> None:
    # Packages print as they like; the answers have the true output for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    desk = Desk(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(desk, request.pop("do"))(**request)
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
        print(json.dumps(answer), file=answers)


class Desk:
    """Answers the requests."""

    def __init__(self, peer: str):
        self.module: Any = None
        self.name = peer
        self.tasks: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Imports the peer: the versions, and the cells that it has."""
        self.module = importlib.import_module(self.name)
        gc.disable()
        return {"versions": self.module.versions(), "cells": list(self.module.CELLS)}

    def load(self, path: str, cell: str, training: bool) -> dict[str, Any]:
        """Makes the model and its batches; saves the roots, which must be the same as ours."""
        self.tasks = {}
        gc.collect()
        stored = dict(np.load(path))
        batches = [Batch(stored, place) for place in range(int(stored["batches"]))]
        weights = {
            name[len("weight ") :]: value
            for name, value in stored.items()
            if name.startswith("weight ")
        }
        model = self.module.Model(cell, weights)
        ready = [model.prepare(batch) for batch in batches]
        roots = np.concatenate([np.asarray(model.roots(batch)) for batch in ready])
        np.save(path + ".roots.npy", roots)
        step = model.learn if training else model.infer
        self.tasks = {
            "step": lambda: [step(batch) for batch in ready],
            "prepare": lambda: [model.prepare(batch) for batch in batches],
        }
        return {}

    def run(self, task: str, calls: int) -> dict[str, float]:
        """The seconds of a call: a "step" of the model, or to "prepare" the batches for it."""
        call = self.tasks[task]
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return {"seconds": (time.perf_counter() - start) / calls}


class Batch:
    """Trees after one another.

    Args:
        features: (nodes, size).
        parents: (nodes,), indices into all nodes of the batch, -1 at roots.
        splits: where each tree starts and ends.
        level: (nodes,), the depth of each node.
        targets: (trees, units).
    """

    def __init__(self, stored: dict[str, Any], place: int):
        for name in ("features", "parents", "splits", "level", "targets"):
            setattr(self, name, stored[f"{name} {place}"])


if __name__ == "__main__":
    main()
