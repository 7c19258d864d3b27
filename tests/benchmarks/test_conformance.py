import json
from dataclasses import replace

import conformance
import conformance_models
import conformance_report
import conformance_trials
import conformance_worker
import failing_worker
import keras
import keras_cases
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from conformance_report import Result
from conformance_trials import attempt
from conformance_worker import Task, Worker
from keras_cases import Case, Given
from rich.console import Console

from keras_blocks.contract import METADATA_KEY, Contract
from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

layers = keras.layers
SECONDS = 10.0  # long enough for a process to start on a busy machine


def a_case(layer=None, shape=(2, 3), dtype="float32", **rest):
    make = layer or (lambda: layers.Dense(4))
    return Case("file::Test.test#0", "core", "Dense", make, Given(shape, dtype), **rest)


def a_result(status="right", **rest):
    facts = {"case": "a", "group": "core", "layer": "Dense", "plain": True, "variant": "batch"}
    return Result(**{**facts, "exporter": "ours", "status": status, **rest})


def text_of(renderable):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


# What Keras's tests test


@pytest.fixture(autouse=True)
def _any_marker(monkeypatch):
    """Keras's tests have markers of their own, which pytest is told to refuse here."""
    monkeypatch.setattr(pytest.mark, "_config", None)


def test_the_cases_of_a_test_are_what_it_asks_to_be_tested():
    cases = keras_cases.cases_of("rnn/gru_test.py::GRUTest.test_basics")
    assert {case.layer for case in cases} == {"GRU"}
    assert {case.group for case in cases} == {"recurrent"}
    assert all(case.plain and isinstance(case.make(), layers.GRU) for case in cases)
    assert {len(case.inputs.shape) for case in cases} == {3}


def test_a_case_is_made_anew_by_its_name():
    name = keras_cases.cases_of("core/dense_test.py::DenseTest.test_dense_basics")[0].name
    one, other = keras_cases.case_of(name), keras_cases.case_of(name)
    assert one.name == name
    assert one.make() is not other.make()


def test_layers_that_are_called_on_data_are_cases_too():
    test = "reshaping/zero_padding1d_test.py::ZeroPadding1DTest.test_zero_padding_1d0"
    (case,) = keras_cases.cases_of(test)
    assert case.layer == "ZeroPadding1D"
    assert case.inputs.values.shape == case.inputs.shape


def test_every_group_of_layers_has_tests():
    folders = {name.split("/")[0] for name in keras_cases.test_names()}
    assert {"activations", "attention", "convolutional", "core", "merging"} <= folders
    assert {"normalization", "pooling", "preprocessing", "regularization"} <= folders
    assert {"reshaping", "rnn"} <= folders


def test_the_tests_of_keras_are_as_they_were_afterwards():
    before = keras.layers.Layer.__call__
    keras_cases.cases_of("core/dense_test.py::DenseTest.test_dense_basics")
    assert keras.layers.Layer.__call__ is before


# What comes of a case


def test_a_case_whose_file_agrees_is_right():
    assert attempt(a_case(), "batch", "ours").status == "right"
    assert attempt(a_case(shape=(2, 3, 4)), "space", "ours").status == "right"
    assert attempt(a_case(mixed=True), "mixed", "ours").status == "right"


def export_twice_as_much(model, path):
    export_onnx(keras.Model(model.inputs, 2 * model.outputs[0]), path, verify=False)


def export_with_frozen_batch(model, path):
    fixed = keras.Input(batch_shape=(3, *model.inputs[0].shape[1:]))
    export_onnx(keras.Model(fixed, model(fixed)), path, verify=False)


def export_nonsense(model, path):
    path.write_bytes(b"nonsense")


def refuse(model, path):
    raise ExportError("no")


def fail(model, path):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("exporter", "status", "reason"),
    [
        (export_twice_as_much, "wrong", "is off by"),
        (export_with_frozen_batch, "does not load", "at (1, 3)"),
        (export_nonsense, "does not load", "Protobuf"),
        (refuse, "refused", "no"),
        (fail, "crashes", "KeyError"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_of_an_exporter_is_found(exporter, status, reason, monkeypatch):
    monkeypatch.setitem(conformance_trials.EXPORTERS, "ours", exporter)
    outcome = attempt(a_case(), "batch", "ours")
    assert outcome.status == status
    assert reason in outcome.reason


@pytest.mark.parametrize(("least", "status"), [((0, 9), "refused"), ((0, 0), "does not load")])
def test_a_size_that_the_file_does_not_take_is_refused_if_its_contract_says_so(
    least, status, monkeypatch
):
    def export(model, path):
        export_with_frozen_batch(model, path)
        proto = onnx.load(path)
        (entry,) = (entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
        contract = Contract.from_json(entry.value)
        inputs = (replace(contract.inputs[0], least=least),)
        entry.value = replace(contract, inputs=inputs).to_json()
        onnx.save(proto, path)

    monkeypatch.setitem(conformance_trials.EXPORTERS, "ours", export)
    assert attempt(a_case(), "batch", "ours").status == status


def test_what_keras_itself_does_not_run_is_no_case():
    case = a_case(lambda: layers.Conv1D(3, 9), (2, 5, 4))
    outcome = attempt(case, "batch", "ours")
    assert outcome.status == "no case"
    assert outcome.reason


def test_mixed_precision_is_tried_where_keras_does():
    seen = []

    def make():
        seen.append(layers.Dense(4))
        return seen[-1]

    assert attempt(a_case(make), "mixed", "ours").status == "no case"
    attempt(a_case(make, mixed=True), "mixed", "ours")
    assert [layer.compute_dtype for layer in seen] == ["float32", "float16"]
    assert keras.config.dtype_policy().name == "float32"


class Coarse(layers.Layer):
    def call(self, x):
        return 2 * x if self.compute_dtype == "float16" else x


def test_what_keras_itself_gets_wrong_in_half_precision_is_no_case():
    outcome = attempt(a_case(Coarse, mixed=True), "mixed", "ours")
    assert outcome.status == "no case"
    assert "float16 is not its float32" in outcome.reason


@pytest.mark.parametrize(
    ("given", "channels_first", "axes"),
    [
        (Given((2, 5, 4), "float32"), False, [1]),
        (Given((2, 5, 1, 4), "float32"), False, [1]),
        (Given((2, 4, 5, 6), "float32"), True, [2, 3]),
        (Given((2, 5), "int32"), False, [1]),
        (Given((2, 5), "float32"), False, []),
    ],
)
def test_time_and_space_can_be_free(given, channels_first, axes):
    assert conformance_models.free_axes(given, channels_first) == axes


def test_the_values_of_a_test_are_repeated_to_any_shape():
    given = Given((2, 2), "int32", np.array([[1, 2], [3, 4]]))
    drawn = conformance_models.draw(given, (3, 3), np.random.default_rng(0))
    assert drawn.tolist() == [[1, 2, 1], [3, 4, 3], [1, 2, 1]]


# The worker


@pytest.fixture
def worker():
    worker = Worker(SECONDS, failing_worker.serve)
    yield worker
    worker.stop()


def test_a_case_that_kills_its_process_ends_alone(worker):
    outcome = worker.attempt(Task("dies", "batch", "ours"))
    assert (outcome["status"], outcome["reason"]) == ("crashes", "exit code 3")
    assert worker.attempt(Task("runs", "batch", "ours"))["status"] == "right"


def test_a_case_that_hangs_is_ended(worker):
    assert worker.cases() == [{"case": "one"}]
    worker.limit = 0.2
    outcome = worker.attempt(Task("hangs", "batch", "ours"))
    assert (outcome["status"], outcome["reason"]) == ("crashes", "no end within 0.2 s")
    worker.limit = SECONDS
    assert worker.attempt(Task("runs", "batch", "ours"))["status"] == "right"


def test_a_worker_that_does_not_start_says_so():
    with pytest.raises(RuntimeError, match="does not start"):
        Worker(SECONDS, failing_worker.serve_not).cases()


# The run and its tables


class Scripted:
    """A worker that notes what it is asked."""

    asked = ()

    def __init__(self, limit):
        Scripted.asked = []

    def cases(self):
        facts = {"group": "core", "layer": "Dense", "plain": True}
        return [{"case": name, **facts} for name in ("a", "b")]

    def attempt(self, task):
        Scripted.asked.append(task)
        wrong = task.case == "b"
        return {"status": "wrong" if wrong else "right", "reason": "odd" if wrong else ""}

    def stop(self):
        pass


def run(tmp_path, *options):
    arguments = ["--results", str(tmp_path / "results.json"), *options]
    return CliRunner().invoke(conformance.main, arguments, catch_exceptions=False)


def test_a_run_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(conformance, "Worker", Scripted)
    run(tmp_path)
    assert len(Scripted.asked) == 6
    path = tmp_path / "results.json"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    run(tmp_path, "--only-tables")
    assert not Scripted.asked
    done = run(tmp_path)
    assert Scripted.asked == [Task("b", "mixed", "ours")]
    assert "ours wrong Dense" in done.output
    run(tmp_path, "--again-unless-right")
    assert {task.case for task in Scripted.asked} == {"b"}
    assert len(conformance.load(path)) == 6


def test_the_page_has_the_tables_and_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(conformance, "Worker", Scripted)
    run(tmp_path, "--exporter", "all", "--markdown", str(tmp_path / "page.md"))
    page = (tmp_path / "page.md").read_text()
    assert page.count("| core | 2 | 1 |") == 9
    assert page.count("| core | 1 of 2 | 1 of 2 | 1 of 2 |") == 3
    assert "| wrong: odd | 3 | `Dense` |" in page


def test_a_reason_is_told_once_for_all_names_and_shapes():
    reasons = ["node 'a' has (None, 3)", "node 'b' has (None, 4, 5)", "no"]
    left = [a_result("refused", reason=reason, layer=reason[-1]) for reason in reasons]
    page = conformance_report.markdown(left, conformance.surroundings(["keras"]))
    assert "| refused: node … has … | 2 | `)` |" in page
    assert "| refused: no | 1 | `o` |" in page


def test_a_choice_that_is_none_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(conformance, "Worker", Scripted)
    done = run(tmp_path, "--only", "nothing")
    assert done.exit_code == 1
    assert "no case has 'nothing'" in done.output


def test_a_table_leaves_out_what_is_no_case():
    results = [a_result(), a_result("no case"), a_result("refused", group="merging")]
    text = text_of(conformance_report.summary(results))
    assert [line.split("│")[2].strip() for line in text.splitlines() if "core" in line] == ["1"]


def test_troubles_are_told_once_with_their_number():
    results = [a_result("wrong", reason="odd")] * 3 + [a_result("refused", reason="no")]
    text = text_of(conformance_report.troubles(results))
    assert text.count("odd") == 1
    assert "3): odd" in text
    assert "refused" not in text
    assert "refused" in text_of(conformance_report.troubles(results, refused_too=True))


@pytest.mark.slow
def test_a_few_cases_through_the_whole_program(tmp_path):
    done = run(tmp_path, "--only", "GRUTest")
    assert done.exit_code == 0
    lines = (tmp_path / "results.json").read_text().splitlines()
    assert {json.loads(line)["status"] for line in lines} == {"right"}
    assert len(lines) < conformance_worker.MOST_TASKS
