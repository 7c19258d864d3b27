"""What the reports say, to people and to machines."""

from __future__ import annotations

import json
import math

import pytest
from parity_reports import VERSIONS, check, report, result, wrong

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.errors import ParityError
from keras_blocks.export.reports.text import FEW_ROWS, MOST_ROWS, NARROWEST, WIDEST
from keras_blocks.export.results.checks import Difference, LayerCheck, Skipped, Worst


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    """For sentences to stay in one line."""
    monkeypatch.setenv("COLUMNS", "120")


def test_a_right_report_tells_what_was_checked():
    text = str(report(check(), check("batch 1, x.time 1", 5e-7)))
    assert "model.onnx equals the Keras model 'reader': 2 samples, worst error 5e-07" in text
    assert "(seed 7)" in text
    assert "batch 3, x.time 7" in text
    assert "100.0%" in text
    assert "WRONG" not in text


def test_a_wrong_report_names_output_shapes_element_and_layer():
    found = report(
        check(),
        wrong(),
        wrong(sample="batch 9", input_shapes={"x": (9, 9, 4)}),
        first_difference=Difference("The first layer that differs is layer 'gru'.", "gru"),
    )
    text = found.failure_text()
    assert "model.onnx does not compute what the Keras model 'reader' computes." in text
    # Of several failures, the first is told.
    assert "Output 'y' for inputs x [3, 7, 4] (batch 3, x.time 7, seed 7)" in text
    assert "at [2, 1] got 1.5, expected 1" in text
    assert "2 of 3 checks differ" in text
    assert text.endswith("The first layer that differs is layer 'gru'.")
    with pytest.raises(ParityError) as caught:
        found.raise_if_wrong()
    assert str(caught.value) == text
    assert caught.value.report is found
    assert str(found).count("WRONG") == 2


def test_a_report_without_checks_proves_nothing():
    assert not report().ok
    assert not report(check(), problem="onnxruntime does not load it").ok
    with pytest.raises(ParityError, match="does not load it"):
        report(problem="onnxruntime does not load it: bad magic").raise_if_wrong()


def test_a_right_report_raises_nothing():
    report(check()).raise_if_wrong()


@pytest.mark.parametrize(("columns", "width"), [("80", 80), ("20", NARROWEST), ("300", WIDEST)])
def test_no_line_is_wider_than_the_terminal(columns, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    long = "rows of 16, 1, 17, 3, 2, random trees, zeros in between, floats times 10"
    found = report(
        check(long, output="a_rather_long_output_name/of/a/nested_model", shape=(128, 1000, 1000)),
        wrong(sample=long),
        skipped=(Skipped(long, "Computed output size would be zero or negative. " * 5),),
        left_out=(long,),
        time_budget=3.0,
        layers=(LayerCheck("a_block/with/a_path/of/some/length", "MultiHeadAttention", 1, (3, 5)),),
    )
    text = str(found)
    assert max(map(len, text.splitlines())) <= width
    # Figures are never cut.
    for figure in ("2.0e-07", "1.0e-07", "1.0e-05", "100.0%", "WRONG"):
        assert figure in text


def test_a_report_tells_what_it_left_out_what_it_allowed_and_what_else_it_saw():
    found = report(
        check(),
        left_out=("batch 1", "several threads"),
        time_budget=0.5,
        notes=("No output depends on the input 'extra'.",),
        tolerance="1e-07 and 2e-05 of the largest magnitude",
    )
    assert found.ok
    text = str(found)
    assert "the time budget of 0.5 s was spent: batch 1; several threads" in text
    assert "note: No output depends on the input 'extra'." in text
    assert "allowed: 1e-07 and 2e-05 of the largest magnitude" in text


def test_a_sample_that_is_run_again_is_counted_once():
    again = check("batch 3, x.time 7, 9 runs with 4 threads", again=True)
    assert report(check(), again).samples == report(check(), again).summary()["samples"] == 1


def test_a_report_shows_the_error_of_each_layer_in_order():
    layers = [LayerCheck(f"layer{i}", "Dense", 1, (3, 5), 1e-7, 1e-7, 1e-5) for i in range(3)]
    text = str(report(check(), layers=(*layers, LayerCheck("shared", "GRU", 2, (3, 5)))))
    places = [text.index(name) for name in ("layer0", "layer1", "layer2", "shared, call 2")]
    assert places == sorted(places)


def test_skipped_samples_are_listed_under_their_reason():
    skipped = (Skipped("batch 1", "too short"), Skipped("batch 2", "too short"))
    text = str(report(check(), skipped=skipped))
    assert "skipped, for the model refuses them (too short): batch 1; batch 2" in text


def test_a_long_report_shows_the_worst_of_each_output_and_what_is_wrong():
    many = [check(f"batch {i}", 1e-9 * i) for i in range(2 * MOST_ROWS)]
    text = str(report(*many, check("the odd one", 3e-7, output="z"), wrong(sample="the bad one")))
    assert "the odd one" in text
    assert "the bad one" in text
    assert "batch 5 " not in text
    assert "more checks" in text


def test_a_brief_report_shows_the_worst_few_checks_and_where_all_are():
    many = [check(f"batch {i}", 1e-9 * i) for i in range(1, 11)]
    text = report(*many, layers=[LayerCheck(f"l{i}", "Dense", 1, (3, 5)) for i in range(9)]).brief()
    rows = [line for line in text.splitlines() if line.startswith("batch ")]
    assert [row.split()[1] for row in rows] == ["10", "9", "8", "7", "6"][:FEW_ROWS]
    assert "10 samples" in text
    assert "all 10 checks, those run again included: --report FILE" in text
    assert "4 more layers" in text
    assert "WRONG" in report(*many, wrong()).brief().splitlines()[-FEW_ROWS - 1]
    assert "--report" not in report(check()).brief()


def test_the_figures_are_the_same_in_the_verdict_the_json_and_the_file():
    found = report(check(), check("batch 9 of a large size", 9e-7, fixed=False))
    body, summary = found.to_dict(), found.summary()
    assert body["samples"] == summary["samples"] == 1
    assert body["max_error"] == summary["max_error"] == 2e-7
    assert "1 samples, worst error 2e-07" in found.verdict()
    assert "1 checks of larger inputs and several threads, worst error 9e-07" in str(found)
    assert "batch 9" in str(found)
    assert "batch 9" not in found.brief()  # above whose rows the worst error of the samples stands
    # What is wrong counts, however it was found.
    assert report(check(), wrong(fixed=False)).max_error == 0.5


def test_json_has_everything_and_no_infinity(tmp_path):
    found = report(check(), check(error=math.inf, worst=Worst((0,), math.nan, 1.0), problem="bad"))
    path = found.save(tmp_path / "report.json")
    body = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert body == found.to_dict()
    assert body["ok"] is False
    assert body["seed"] == 7
    assert body["samples"] == 1
    assert body["checks"][0]["input_shapes"] == {"x": [3, 7, 4]}
    assert body["checks"][1]["max_error"] == "inf"
    assert body["checks"][1]["worst"] == {"index": [0], "got": "nan", "expected": 1.0}


def test_a_report_is_saved_as_json_or_html_only(tmp_path):
    assert report(check()).save(tmp_path / "report.html").read_text().startswith("<!doctype html>")
    with pytest.raises(
        ValueError, match=r"saved as .json or .html. Received: filepath='.*report.txt'"
    ):
        report(check()).save(tmp_path / "report.txt")


def test_the_summary_is_short_and_the_same_for_the_same_proof():
    # How many rows there is time for differs from one machine to the next.
    first, second = (
        report(check(), check(f"batch {rows}", error=rows * 1e-9, fixed=False), seconds=rows)
        for rows in (1000.0, 2000.0)
    )
    assert first.summary() == second.summary()
    assert first.summary() == {
        "ok": True,
        "level": "usual",
        "samples": 1,
        "skipped": 0,
        "left_out": 0,
        "seed": 7,
        "max_error": 2e-7,
        "versions": VERSIONS,
    }


def test_an_export_result_tells_signature_ops_size_and_proof():
    text = str(result())
    assert "trees.onnx: 1.2 MB, opset 18, 8 nodes" in text
    assert "ops: MatMul 5, Add 2, Loop 1" in text
    assert "ragged (tokens.row_splits), 0 to 4999" in text
    assert "ragged (parents.row_splits), tree of tokens, -1 to ..." in text
    assert "equals the Keras model 'reader'" in text


def test_the_signature_tells_how_the_inputs_of_a_tree_belong_together():
    inputs = (
        TensorSpec("words", "int32", ("words.values",), leaves_of="parents"),
        TensorSpec("parents", "int32", ("parents.values",), tree_of="parents", max_children=2,
                   forest=True),
        TensorSpec("slots", "int32", ("slots.values",), edges_of="parents", edge_labels=2,
                   siblings_differ=True),
    )  # fmt: skip
    text = str(result(contract=Contract(inputs, ())))
    for notes in (
        "leaves of parents",
        "forest, 2 children at most",
        "edges of parents, labels 0 to 1, siblings differ",
    ):
        assert notes in text


def test_an_export_result_without_proof_says_so():
    assert "not proven" in str(result(parity=None))
    assert result(parity=None).to_dict()["parity"] is None


def test_an_export_result_is_json(tmp_path):
    body = json.loads(result().save(tmp_path / "result.json").read_text())
    assert body["contract"]["inputs"][0]["name"] == "tokens"
    assert body["parity"]["ok"] is True
    assert body["op_counts"] == {"Add": 2, "Loop": 1, "MatMul": 5}
