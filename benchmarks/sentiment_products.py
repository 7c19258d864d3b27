"""The matrix products of an epoch of examples/sentiment_trees and nothing else, in TensorFlow.

What no program on TensorFlow can go below. Run by `sentiment_epoch.py`, as our epoch is. Each level
is a product of its own, as the order of the trees demands, with its gradients.
"""

from __future__ import annotations

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
import tensorflow as tf
from tree_limit import Product, in_tensorflow
from tree_samples import Forest

# Enough of the batches, which are alike; all of them would take minutes to trace.
SAMPLED = 20


def main(path: str, threads: int) -> None:
    """Answers each line on stdin with the time of all products of an epoch."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    with np.load(path) as file:
        record = dict(file)
    batches = np.split(record["order"], record["batch_ends"])
    sampled = batches[:: max(1, len(batches) // SAMPLED)]
    calls = [in_tensorflow(products(record, rows), training=True) for rows in sampled]
    for call in calls:
        call()
    print(json.dumps({"tensorflow": tf.__version__, "threads": threads}), flush=True)
    share = len(batches) / len(sampled)
    for _ in sys.stdin:
        start, worked = time.perf_counter(), time.process_time()
        for call in calls:
            call()
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - worked}
        print(json.dumps({key: share * value for key, value in taken.items()}), flush=True)


def products(record: dict[str, np.ndarray], rows: np.ndarray) -> list[Product]:
    """Those of a batch: W at leaves, U at the inner nodes of each level, scores at all nodes."""
    sizes, splits = json.loads(str(record["sizes"])), record["node_splits"]
    forest = Forest.of([record["parents"][splits[row] : splits[row + 1]] for row in rows])
    units, is_inner = sizes["hidden"], forest.children > 0
    levels = np.bincount(forest.level[is_inner])
    return [
        Product(int((~is_inner).sum()), sizes["embedded"], 3 * units),
        *(Product(int(count), 2 * units, 5 * units) for count in levels),
        Product(forest.nodes, units, sizes["classes"]),
    ]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
