import sys

import click
import harness
import numpy as np
import pytest
import sentiment_epoch
import sentiment_products

WORKER = """
import json, sys
print(json.dumps({"torch": "9"}), flush=True)
for turn, _ in enumerate(sys.stdin):
    if turn == 2:
        sys.exit(3)
    print(json.dumps({"seconds": turn, "loss": 0.5}), flush=True)
"""


def result(threads, by_height, by_depth):
    timing = harness.Timing(2.0, 1.5, 2.5)
    ratios = {
        "height": harness.Timing(by_height, by_height, by_height),
        "depth": harness.Timing(by_depth, by_depth, by_depth),
    }
    return {
        "threads": threads,
        "torch": "9",
        "epochs": {name: {"loss": [2.0, 1.0]} for name in ("ours", "height", "depth")},
        "seconds": dict.fromkeys(("ours", "height", "depth", "products"), timing),
        "ratios": ratios,
        "cpu_ratios": ratios,
        "product_ratios": ratios,
    }


def text_of(*results):
    facts = harness.surroundings(["numpy"])
    sizes = {"sentences": 10, "nodes": 30, "batch": 5, "embedded": 3, "hidden": 2}
    return sentiment_epoch.report(facts, sizes, list(results))


def test_a_goal_that_was_missed_is_named():
    assert "0.7 of the twin's time: met." in text_of(result(1, 0.6, 0.7), result(4, 0.5, 0.7))
    text = text_of(result(1, 0.6, 0.7), result(4, 0.6, 0.8))
    assert "missed (4 threads, by depth)." in text
    assert (
        "| 4, by depth | 2.00 s | 2.00 s | 0.80 (0.80 to 0.80) | 0.80 | 2.00 s | 0.80 | 5 |" in text
    )


def test_a_racer_answers_each_time_and_its_end_is_an_error(tmp_path):
    program = tmp_path / "worker.py"
    program.write_text(WORKER)
    with sentiment_epoch.racer(1, sys.executable, program) as racer:
        assert racer.facts == {"torch": "9"}
        assert [racer.epoch()["seconds"] for _ in range(2)] == [0, 1]
        with pytest.raises(click.ClickException, match=r"worker\.py.* ended with 3"):
            racer.epoch()
    assert racer.process.poll() is not None


def test_the_record_holds_every_tree_once_in_batches(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.txt").write_text("(3 (2 a) (4 b))\n(1 c)\n(2 (2 b) (2 a))\n")
    path = tmp_path / "record.npz"
    sizes = sentiment_epoch.record_of(tmp_path, batch=2, limit=None, path=path)
    assert (sizes["sentences"], sizes["nodes"], sizes["words"]) == (3, 7, 4)
    with np.load(path) as record:
        parts = np.split(record["order"], record["batch_ends"])
        assert [len(part) for part in parts] == [2, 1]
        assert sorted(np.concatenate(parts)) == [0, 1, 2]
        assert record["node_splits"].tolist() == [0, 3, 4, 7]
        assert record["classes"].tolist() == [3, 2, 4, 1, 2, 2, 2]


def test_the_products_of_a_batch_are_those_of_its_levels(tmp_path):
    for part in ("train", "dev", "test"):
        (tmp_path / f"{part}.txt").write_text("(3 (2 (1 a) (4 b)) (4 b))\n(1 c)\n")
    path = tmp_path / "record.npz"
    sentiment_epoch.record_of(tmp_path, batch=2, limit=None, path=path)
    with np.load(path) as file:
        found = sentiment_products.products(dict(file), np.arange(2))
    assert [(p.rows, p.inner, p.columns) for p in found] == [
        (4, 300, 450),
        (1, 300, 750),
        (1, 300, 750),
        (6, 150, 5),
    ]
