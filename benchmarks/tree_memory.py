"""Memory of a batch of trees, beyond what is there before it comes.

    python benchmarks/tree_memory.py file tree.onnx skewed 20000
    python benchmarks/tree_memory.py training - chains 20000

It prints how many kilobytes the peak is above the state before. Each measurement has a process of
its own, since memory that was freed once is there again for free. Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tree_samples import Forest, chains, sentences

STATUS = Path("/proc/self/status")
SIZES = (10_000, 20_000, 40_000)
QUICK_SIZES = (2_500, 5_000)
# glibc gives blocks above this size back when they are freed, and so counts only what is in use.
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(64 * 1024)}
NODES_OF_A_SENTENCE = 37
SHAPES = {
    "sentences": lambda nodes: sentences(nodes // NODES_OF_A_SENTENCE),
    "chains": lambda nodes: chains(25, nodes // 25),
    # Half of the nodes in sentences, half of them children of one root.
    "skewed": lambda nodes: Forest.of(
        [*sentences(nodes // 2 // NODES_OF_A_SENTENCE).rows(), [-1] + [0] * (nodes // 2)]
    ),
}


@dataclass(frozen=True)
class Memory:
    """Peaks above the state before, by the number of nodes.

    Args:
        kind: str, the exported file or a step of training.
        shape: str, of the trees.
        nodes, kilobytes: one of each for each size.
    """

    kind: str
    shape: str
    nodes: list[int]
    kilobytes: list[float]

    def per_node(self) -> float:
        """Kilobytes for each node more, by a line through the peaks."""
        return float(np.polyfit(self.nodes, self.kilobytes, 1)[0])

    def growth(self) -> float:
        """The highest peak by the one at half the nodes: 2 where memory grows with the nodes."""
        more = self.nodes[-1] / self.nodes[-2]
        return self.kilobytes[-1] / self.kilobytes[-2] * 2 / more


def measured(kind: str, path: Path | None, shape: str, sizes: tuple[int, ...] = SIZES) -> Memory:
    """The peaks, each in a process of its own."""
    nodes, kilobytes = [], []
    for size in sizes:
        arguments = [sys.executable, __file__, kind, str(path or "-"), shape, str(size)]
        done = subprocess.run(
            arguments, capture_output=True, text=True, env={**os.environ, **RETURNED}
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments[1:])} failed: {done.stderr[-2000:]}")
        answer = json.loads(done.stdout.splitlines()[-1])
        nodes.append(answer["nodes"])
        kilobytes.append(answer["kilobytes"])
    return Memory(kind, shape, nodes, kilobytes)


def available() -> bool:
    """Whether peaks can be read here."""
    return STATUS.exists() and os.access("/proc/self/clear_refs", os.W_OK)


def main() -> None:
    """Measures once; the arguments stand above."""
    kind, path, shape, size = sys.argv[1:]
    forest = SHAPES[shape](int(size))
    call = _file(path, forest) if kind == "file" else _training(forest)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _status("VmRSS")
    call()
    print(json.dumps({"nodes": forest.nodes, "kilobytes": _status("VmHWM") - before}))


def _status(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])


def _file(path: str, forest: Forest) -> Any:
    import onnxruntime
    from one_thread import session_options

    options = session_options()
    # The arena grows in powers of two, which would hide how much was asked for.
    options.enable_cpu_mem_arena = False
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    from tree_models import feeds

    inputs = feeds(forest)
    session.run(None, feeds(sentences(2)))
    return lambda: session.run(None, inputs)


def _training(forest: Forest) -> Any:
    import keras
    import tensorflow as tf
    from tree_models import LEARNING_RATE, ragged, targets, tree_lstm

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tree_lstm("child-sum")
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "mse")

    def data(forest: Forest) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensors((ragged(forest), targets(forest)))

    # Dry runs: what is traced and set up once is not of the batch.
    model.fit(data(sentences(2)).repeat(2), verbose=0)
    batch = data(forest)
    return lambda: model.fit(batch, verbose=0)


if __name__ == "__main__":
    main()
