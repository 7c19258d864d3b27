import json

import export_speed
import export_speed_report
import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner
from export_speed_cases import CASES
from export_speed_hand import BY_HAND
from export_speed_report import HAND, OURS, PROVEN, STOCK, TENSORFLOW, TF2ONNX, Row

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("name", [case.name for case in CASES if case.by_hand])
def test_a_graph_by_hand_gives_what_keras_gives(name):
    case = BY_NAME[name]
    model, inputs = case.made()
    session = onnxruntime.InferenceSession(BY_HAND[case.by_hand](model))
    (got,) = session.run(None, {"x": inputs[0]})
    np.testing.assert_allclose(got, model(inputs[0], training=False).numpy(), atol=2e-4)


def test_a_case_is_the_same_each_time_it_is_made():
    (first, x), (second, y) = BY_NAME["dense layers"].made(), BY_NAME["dense layers"].made()
    np.testing.assert_array_equal(x[0], y[0])
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_the_goals_name_every_graph_by_hand_that_was_asked_for():
    assert {case.by_hand for case in CASES} - {""} == set(BY_HAND)


def test_a_run_is_saved_and_written_as_a_page(tmp_path, monkeypatch):
    monkeypatch.setattr(export_speed, "DOCS", tmp_path)
    # The threads of TensorFlow are set for all tests.
    monkeypatch.setattr(export_speed, "one_thread", lambda: None)
    arguments = ["--output", str(tmp_path)]
    run = CliRunner().invoke(
        export_speed.main, [*arguments, "--quick", "--only", "group normalization"]
    )
    assert run.exit_code == 0, run.output
    (row,) = json.loads((tmp_path / "export_speed.json").read_text())["rows"]
    assert {OURS, STOCK, TF2ONNX, TENSORFLOW} == set(row["seconds"])
    assert {OURS, PROVEN, STOCK} == set(row["exports"])
    written = CliRunner().invoke(export_speed.main, [*arguments, "--write-docs"])
    assert written.exit_code == 0, written.output
    assert "| group normalization |" in (tmp_path / "export_speed.md").read_text()


def test_a_name_that_no_case_has_is_refused():
    run = CliRunner().invoke(export_speed.main, ["--only", "no such case"])
    assert run.exit_code == 1
    assert "no case has 'no such case' in its name" in run.output


def test_a_file_that_computes_something_else_does_not_race():
    case = BY_NAME["LSTM"]
    model, inputs = case.made()
    wrong = np.ones((16, 50, 128), "float32")
    with pytest.raises(AssertionError, match="Not equal"):
        export_speed.session(BY_HAND["lstm"](model), inputs, wrong)


def a_row(name="a", **ratios):
    """Ours takes a second, each other by its ratio."""
    seconds = {OURS: [1.0, 1.0]} | {peer: [1 / r, 1 / r] for peer, r in ratios.items()}
    return Row(name, seconds=seconds)


def test_a_goal_that_was_missed_is_named():
    rows = [
        a_row("slow", stock=0.5, tf2onnx=1.2),
        a_row("quick", stock=0.5),
        Row("far from hand", {OURS: [1.0, 1.0], HAND: [0.5, 0.5]}),
        Row("alone", {OURS: [1.0, 1.0]}, absent={STOCK: "it does not load"}),
    ]
    text = export_speed_report.verdicts(rows)
    assert "as fast as the best of stock and tf2onnx: 1 of 2; not slow 1.20." in text
    assert "within 10% of the graph by hand: 0 of 1; not far from hand 2.00." in text
    page = export_speed_report.report(rows, FACTS)
    assert "- alone: no stock file: it does not load" in page


def test_the_times_of_exports_are_compared_with_the_stock_exporters():
    row = Row("a", exports={OURS: [2.0, 2.0], PROVEN: [7.0, 7.0], STOCK: [2.0, 2.0]})
    text = export_speed_report.verdicts([row])
    assert "exported in 1.5 times the stock time: 1 of 1." in text
    assert "exported and proven in 3 times the stock time: 0 of 1; not a 3.50." in text


FACTS = {
    "date": "2026-11-23", "processor": "P", "cores": 2, "load_at_start": 0.1, "python": "3.11",
    "packages": {"keras": "3"},
}  # fmt: skip
