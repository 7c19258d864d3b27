"""What the report of a change says about it."""

from __future__ import annotations

import pytest

from keras_blocks.export.reports.file_report import ChangeReport, FileComparison
from keras_blocks.export.reports.file_rows import seconds_text
from keras_blocks.export.results.files import FileFacts, OutputDifference


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


def report(times=(1.0, 0.5), size=250, changed=None, **facts):
    """A change of a file of 1000 bytes that took a second at batch 1 and at batch 32."""
    labels, opset = ("batch 1", "batch 32"), {"ai.onnx": 26}
    seconds = dict.fromkeys(labels, 1.0), dict(zip(labels, times, strict=True))
    before = FileFacts("a.onnx", 1000, {"MatMul": 1}, opset, 1.0, seconds[0])
    after = FileFacts("b.onnx", size, {"MatMulInteger": 1}, opset, 0.5, seconds[1])
    output = OutputDifference("y", "float32", 10, 0.25, 0.125, 0.0625, 0.9)
    comparison = FileComparison(before, after, (output,), samples=3, seed=0)
    changed = {"MatMul": 1} if changed is None else changed
    return ChangeReport("dynamic int8", comparison, changed, **facts)


@pytest.mark.parametrize(
    ("times", "verdict"),
    [
        ((0.5, 0.9), "0.25 times the size; faster: 0.50 times the time at batch 1, 0.90"),
        ((1.2, 1.06), "0.25 times the size; SLOWER: 1.20 times the time at batch 1, 1.06"),
        ((1.04, 0.97), "0.25 times the size; no faster: 1.04 times the time at batch 1, 0.97"),
        ((1.4, 0.5), "0.25 times the size; 1.40 times the time at batch 1, 0.50"),
    ],
)
def test_the_verdict_says_whether_runs_became_faster(times, verdict):
    assert report(times).verdict().startswith(verdict)


def test_the_verdict_says_when_nothing_was_won():
    assert report(size=1000, changed={}).verdict() == (
        "Nothing was won: 1.00 times the size, and nothing in it was changed."
    )


def test_the_report_shows_both_files_their_outputs_and_what_was_left():
    text = str(report(notes=("2 GRU left",)))
    for line in (
        "b.onnx: dynamic int8",
        "size      1.0 kB  250 bytes   0.25",
        "loading   1.00 s     500 ms   0.50",
        "batch 32  1.00 s     500 ms   0.50",
        "y         2.5e-01     1.2e-01   6.2e-02        90.0%",
        "MatMulInteger               1",
        "Errors: over 3 drawn inputs (seed 0). Times: medians in turns, one thread.",
        "Changed: 1 MatMul.",
        "Note: 2 GRU left.",
    ):
        assert line in text.splitlines()


def test_ratios_are_the_new_by_the_old():
    found = report()
    assert found.size_ratio == 0.25
    assert found.speed_ratios == {"batch 1": 1.0, "batch 32": 0.5}
    assert found.to_dict()["speed_ratios"] == found.speed_ratios
    assert found.max_error == 0.25


def test_times_have_a_unit_that_reads_well():
    assert [seconds_text(s) for s in (2.5, 0.25, 1.25e-5)] == ["2.50 s", "250 ms", "0.0125 ms"]
