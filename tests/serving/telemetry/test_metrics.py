import re

import httpx
import onnx_files
import pytest

from keras_blocks.serving import load_repository
from keras_blocks.serving.inference.statistics import Histogram, ModelStatistics

from ..conftest import running

LINE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)+)\} (\d\S*)$')


def values(text):
    """Metric with its labels -> value; every line that is no comment must be well formed."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = LINE.match(line)
            assert match, line
            found[f"{match[1]}{{{match[2]}}}"] = float(match[3])
    return found


def infer(client, rows, **kwargs):
    x = {"name": "x", "datatype": "INT64", "shape": [len(rows)], "data": rows}
    return client.post("/v2/models/gather/infer", json={"inputs": [x], **kwargs})


def test_requests_rows_runs_and_times_are_counted_by_model_and_version(tmp_path):
    onnx_files.gather(tmp_path / "gather" / "3" / "model.onnx")
    onnx_files.double(tmp_path / 'a "quoted" name' / "1" / "model.onnx")
    with running(load_repository(tmp_path)) as url, httpx.Client(base_url=url) as client:
        for _ in range(4):
            infer(client, [0, 1, 2])
        infer(client, [7])
        response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = values(response.text)
    model = 'model="gather",version="3"'
    assert found[f'keras_blocks_requests_total{{{model},outcome="success"}}'] == 4
    assert found[f'keras_blocks_requests_total{{{model},outcome="fail"}}'] == 1
    assert found[f"keras_blocks_rows_total{{{model}}}"] == 13
    assert found[f"keras_blocks_runs_total{{{model}}}"] == 5
    assert found[f"keras_blocks_waiting_requests{{{model}}}"] == 0
    assert found[f'keras_blocks_batch_rows_bucket{{{model},le="2"}}'] == 1
    assert found[f'keras_blocks_batch_rows_bucket{{{model},le="+Inf"}}'] == 5
    assert found[f"keras_blocks_queue_seconds_count{{{model}}}"] == 5
    assert 0 < found[f"keras_blocks_compute_seconds_sum{{{model}}}"] < 60
    assert found[f"keras_blocks_request_seconds_count{{{model}}}"] == 5
    waited, computed, whole = (
        found[f"keras_blocks_{name}_seconds_sum{{{model}}}"]
        for name in ("queue", "compute", "request")
    )
    assert whole == pytest.approx(waited + computed)  # each ran alone
    assert any('model="a \\"quoted\\" name"' in name for name in found)


def test_a_histogram_counts_each_value_at_its_bound_and_all_above():
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.add(value)
    assert histogram.cumulative() == [("1", 2), ("2", 4), ("+Inf", 5)]
    assert (histogram.count, histogram.total) == (5, 8)


def test_the_time_of_a_run_is_split_into_waiting_and_computing():
    counts = ModelStatistics()
    counts.ran(rows=3, arrivals=[1.0, 3.0], ended=6.0, seconds=2.0, failed=1)
    assert (counts.queue.total, counts.queue.count) == (4.0, 2)
    assert (counts.compute.seconds, counts.success.seconds, counts.fail.seconds) == (4, 4, 4)
    assert (counts.rows, counts.runs, counts.batches[3].seconds) == (3, 1, 2)
