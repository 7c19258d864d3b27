"""The epoch of examples/sentiment_trees, as `sentiment_epoch.py` asks for it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "sentiment_trees"))

import keras
import numpy as np
import tensorflow as tf


def main(path: str, threads: int) -> None:
    """Answers each line on stdin with an epoch: its seconds, its processor time and its loss."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    from batches import Rows
    from learner import Settings, make_learner

    with np.load(path) as file:
        record = dict(file)
    nodes = record["node_splits"]
    words = tf.RaggedTensor.from_row_splits(record["words"], record["word_splits"])
    parents = tf.RaggedTensor.from_row_splits(record["parents"], nodes)
    classes = tf.RaggedTensor.from_row_splits(record["classes"], nodes)
    rows = Rows(*(tf.gather(part, record["order"]) for part in (words, parents, classes)))
    sizes, rates = json.loads(str(record["sizes"])), json.loads(str(record["rates"]))
    settings = Settings(
        embedded=sizes["embedded"], hidden=sizes["hidden"], dropout=sizes["dropout"],
        learning_rate=rates["weights"], words_learning_rate=rates["words"], decay=rates["decay"],
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    learner = make_learner(sizes["words"], sizes["classes"], settings)
    learned = rows.in_order(int(record["batch"]))
    print(json.dumps({"tensorflow": tf.__version__, "threads": threads}), flush=True)
    for _ in sys.stdin:
        start, worked = time.perf_counter(), time.process_time()
        history = learner.fit(learned, epochs=1, verbose=0, shuffle=False).history
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - worked}
        print(json.dumps({**taken, "loss": history["loss"][-1]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
