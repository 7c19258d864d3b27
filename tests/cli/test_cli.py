import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import linear_files
import numpy as np
import onnx
import onnx_files
import pytest
from click.testing import CliRunner

import keras_blocks as kb
from keras_blocks.cli.main import main
from keras_blocks.cli.options import FAILED, UNREADABLE, WIDTH
from keras_blocks.contract import (
    CHANGES_METADATA_KEY,
    PROOF_METADATA_KEY,
    Contract,
    TensorSpec,
)
from keras_blocks.contract.array_files import read_inputs


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: two models are made once, for all tests here."""


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def npy_bytes():
    file = io.BytesIO()
    np.save(file, np.array([7], "int32"))
    return file.getvalue()


def npz_bytes():
    file = io.BytesIO()
    np.savez(file, x=np.array([7], "int32"))
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Keras model, a twin with other weights, and files of inputs."""
    path = tmp_path_factory.mktemp("cli")
    keras.utils.set_random_seed(3)
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    outputs = kb.GRU(3, name="gru")(kb.Embedding(11, 2)(tokens))
    for name in ("model", "twin"):
        model = keras.Model(tokens, outputs)
        model.set_weights([np.random.normal(size=w.shape) for w in model.get_weights()])
        model.save(path / f"{name}.keras")
    return path


@pytest.fixture(scope="module")
def exported(folder):
    path = folder / "models" / "gru" / "1" / "model.onnx"
    result = run("export", folder / "model.keras", "-o", path, "--proof", "fast")
    assert result.exit_code == 0, result.output
    return path, result.output


# export and check


def test_export_writes_a_file_and_says_what_was_proven(exported):
    path, output = exported
    assert path.is_file()
    assert "equals the Keras model" in " ".join(output.split())


def test_the_exported_file_predicts_what_keras_predicts(folder, exported):
    rows = [[1, 2, 3], [], [10]]
    (folder / "rows.json").write_text(json.dumps({"tokens": rows}))
    result = run("predict", exported[0], folder / "rows.json", "-o", folder / "out.npz")
    assert result.exit_code == 0, result.output
    model = keras.saving.load_model(folder / "model.keras")
    import tensorflow as tf

    expected = model(tf.ragged.constant(rows, dtype="int32")).numpy()
    # Float32 in two implementations of the same formula.
    np.testing.assert_allclose(np.load(folder / "out.npz")["gru"], expected, atol=1e-6)


def test_a_folder_that_tensorflow_saved_is_exported_too(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(300)(x))
    model.export(tmp_path / "saved", format="tf_saved_model", verbose=False)
    done = run("export", tmp_path / "saved", "-o", tmp_path / "m.onnx", "--external-data")
    assert done.exit_code == 0, done.output
    assert "equals the Keras model 'saved'" in " ".join(done.output.split())
    assert (tmp_path / "m.onnx.data").stat().st_size >= 4 * 4 * 300
    (tmp_path / "empty").mkdir()
    refused = run("export", tmp_path / "empty", "-o", tmp_path / "n.onnx")
    assert refused.exit_code == UNREADABLE
    assert "cannot be loaded as a SavedModel" in " ".join(refused.output.split())


def test_check_exits_with_0_for_the_same_model_and_1_for_another(folder, exported):
    same = run("check", folder / "model.keras", exported[0], "--proof", "fast")
    assert same.exit_code == 0, same.output
    other = run("check", folder / "twin.keras", exported[0], "--json", "--proof", "fast")
    assert other.exit_code == FAILED
    assert json.loads(other.output)["ok"] is False


def test_check_takes_the_inputs_to_compare_on(folder, exported):
    np.savez(folder / "rows.npz", **{"tokens": [1, 2, 9], "tokens.row_splits": [0, 2, 3]})
    same = run("check", folder / "model.keras", exported[0], "--inputs", folder / "rows.npz")
    assert same.exit_code == 0, same.output
    assert "1 samples" in same.output
    np.save(folder / "rows.npy", [1, 2])
    wrong = run("check", folder / "model.keras", exported[0], "--inputs", folder / "rows.npy")
    assert wrong.exit_code == UNREADABLE
    assert "tokens.row_splits" in wrong.output


def test_a_terminal_is_told_what_takes_so_long_but_not_with_json(folder, tmp_path):
    command = [Path(sys.executable).with_name("keras-blocks"), "export", folder / "model.keras"]
    command += ["-o", tmp_path / "model.onnx", "--proof", "fast"]
    shown, quiet = [], {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for more in ([], ["--json"]):
        reader, terminal = os.openpty()
        with open(terminal, "wb") as stderr:
            command += more
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stderr, env=quiet, check=True)
        try:
            shown.append(os.read(reader, 2**20).decode())
        except OSError:  # nothing was written
            shown.append("")
        os.close(reader)
    assert shown[0].startswith("Loading TensorFlow ...\r\nLoading ")
    assert shown[1] == ""


def test_a_file_that_is_no_keras_model_is_one_line(tmp_path):
    (tmp_path / "model.keras").write_text("no zip")
    result = run("export", tmp_path / "model.keras", "-o", tmp_path / "model.onnx")
    assert result.exit_code == UNREADABLE
    assert result.output.startswith(f"Error: {tmp_path / 'model.keras'} cannot be loaded as a")
    assert result.output.count("\n") == 1
    assert not (tmp_path / "model.onnx").exists()


# inspect


def test_inspect_shows_signature_and_ops_of_a_file_without_our_metadata(tmp_path):
    result = run("inspect", onnx_files.slow(tmp_path / "slow.onnx"))
    assert result.exit_code == 0
    assert "[256, 256]" in result.output
    assert "read off the graph" in result.output
    assert "1 MatMul" in result.output
    assert "opset ai.onnx 18" in result.output


def test_inspect_shows_bounds_and_ragged_inputs_of_a_contract(tmp_path):
    result = run("inspect", onnx_files.row_sums(tmp_path / "m.onnx"))
    assert "written by the export" in result.output
    assert "minimum 0, maximum 9" in result.output
    assert "x.row_splits" in result.output


def test_inspect_as_json_is_for_programs(tmp_path):
    path = onnx_files.double(tmp_path / "m.onnx")
    facts = json.loads(run("inspect", path, "--json").output)
    assert facts["bytes"] == path.stat().st_size
    assert facts["ops"] == {"Add": 1}
    assert facts["inputs"] == [
        {
            "name": "x",
            "datatype": "FP32",
            "shape": [-1, 3],
            "parameters": {"dims": ["batch", "3"]},
        }
    ]


def test_inspect_survives_metadata_that_others_wrote(tmp_path):
    path = onnx_files.double(tmp_path / "m.onnx")
    for proof, changes in (("{", "["), ("1", "[1]"), ('"a"', '{"a": 1}')):
        model = onnx.load(path)
        onnx.helper.set_model_props(
            model, {PROOF_METADATA_KEY: proof, CHANGES_METADATA_KEY: changes}
        )
        onnx.save(model, path)
        facts = json.loads(run("inspect", path, "--json").output)
        assert (facts["proof"], facts["changes"]) == (None, [])
        assert run("quantize", path).exit_code == 0


def test_inspect_writes_a_page_with_the_graph(tmp_path):
    path = onnx_files.row_sums(tmp_path / "m.onnx")
    result = run("inspect", path, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    page = (tmp_path / "page.html").read_text()
    assert "<svg" in page
    assert result.output.endswith(f"The page is in {tmp_path / 'page.html'}.\n")
    assert "CumSum" in page


def test_inspect_tells_what_was_done_to_a_file(tmp_path):
    path = linear_files.product(tmp_path / "m.onnx", linear_files.weights())
    run("quantize", path, "-o", tmp_path / "small.onnx")
    shown = run("inspect", tmp_path / "small.onnx").output
    assert "proof: none in the file" in shown
    assert "changed: dynamic int8; off by 0." in shown
    assert "samples; right on every processor" in shown
    (change,) = json.loads(run("inspect", tmp_path / "small.onnx", "--json").output)["changes"]
    assert (change["change"], change["processors"]) == ("dynamic int8", "any")
    run("quantize", path, "-o", tmp_path / "vnni.onnx", "--target", "vnni")
    assert "; right on x86 processors with VNNI;" in run("inspect", tmp_path / "vnni.onnx").output


# compare, quantize, float16, optimize


@pytest.fixture
def linear(tmp_path):
    return linear_files.product(tmp_path / "linear.onnx", linear_files.weights())


@pytest.fixture
def other(tmp_path):
    return linear_files.product(tmp_path / "other.onnx", linear_files.weights(1))


def test_compare_exits_with_0_for_equal_files_and_1_for_others(linear, other):
    same = run("compare", linear, linear, "--no-timing")
    assert same.exit_code == 0, same.output
    assert "agree" in same.output
    differing = run("compare", linear, other, "--no-timing", "--json")
    assert differing.exit_code == FAILED
    body = json.loads(differing.output)
    assert body["ok"] is False
    assert run("compare", linear, other, "--atol", 100, "--no-timing").exit_code == 0


def test_files_that_do_not_belong_together_differ(linear, tmp_path):
    result = run("compare", linear, onnx_files.add_bias(tmp_path / "b.onnx"))
    assert result.exit_code == FAILED
    assert "cannot be compared" in " ".join(result.output.split())


def test_compare_takes_data_and_labels(linear, other, tmp_path):
    data = np.random.default_rng(0).normal(size=(20, linear_files.SIZE)).astype("float32")
    np.savez(tmp_path / "data.npz", x=data)
    np.save(tmp_path / "labels.npy", (data @ linear_files.weights()).argmax(-1))
    files = ("--inputs", tmp_path / "data.npz", "--labels", tmp_path / "labels.npy")
    body = json.loads(run("compare", linear, other, *files, "--json", "--no-timing").output)
    assert body["original"]["accuracy"] == {"y": 1.0}
    assert body["other"]["accuracy"]["y"] < 0.5
    np.save(tmp_path / "data.npy", data)
    plain = run("compare", linear, linear, "--inputs", tmp_path / "data.npy", "--no-timing")
    assert plain.exit_code == 0, plain.output
    np.savez(tmp_path / "data.npz", z=data)
    wrong = run("compare", linear, other, *files)
    assert wrong.exit_code == UNREADABLE
    said = "input 'x' is missing and input 'z' is unknown; the model takes 'x' (FP32 [batch, 96])"
    assert wrong.output == f"Error: inputs: {said}\n"


@pytest.mark.parametrize(
    ("command", "suffix", "largest"),
    [
        (("quantize",), "int8", 0.4),
        (("quantize", "--weights-only"), "int8", 0.4),
        (("quantize", "--op", "MatMul", "--reduce-range"), "int8", 0.4),
        (("quantize", "--target", "vnni", "--reduce-range"), "int8", 0.4),
        (("float16",), "float16", 0.6),
        (("float16", "--weights-only"), "float16", 0.6),
        (("float16", "--float16-io"), "float16", 0.6),
        (("optimize", "--level", "basic"), "optimized", 1.1),
    ],
    ids=str,
)
def test_a_change_is_written_beside_the_file_and_reported(linear, command, suffix, largest):
    result = run(command[0], linear, *command[1:], "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    target = linear.with_name(f"linear.{suffix}.onnx")
    assert report["filepath"] == str(target)
    assert report["comparison"]["other"]["size_bytes"] == target.stat().st_size
    assert report["size_ratio"] < largest
    (output,) = report["comparison"]["outputs"]
    assert output["relative_error"] < 0.05
    assert output["max_error"] == report["max_error"]
    assert run("compare", linear, target, "--rtol", 0.05, "--no-timing").exit_code == 0


def test_quantize_takes_calibration_data(linear, tmp_path):
    data = np.random.default_rng(0).normal(size=(20, linear_files.SIZE))
    np.savez(tmp_path / "data.npz", x=data)
    result = run("quantize", linear, "--calibration", tmp_path / "data.npz")
    assert result.exit_code == 0, result.output
    assert "static int8" in result.output
    assert max(map(len, result.output.splitlines())) <= max(WIDTH, len(str(linear)) + 20)


def test_a_change_that_is_off_too_far_is_not_written(linear):
    result = run("quantize", linear, "--max-error", 1e-9)
    assert result.exit_code == FAILED
    assert "was not written" in result.output
    assert [p.name for p in linear.parent.iterdir()] == ["linear.onnx"]


def test_a_file_is_not_changed_in_place_unless_asked(linear):
    before = linear.read_bytes()
    result = run("quantize", linear, "-o", linear)
    assert result.exit_code == UNREADABLE
    assert "--overwrite" in result.output
    assert linear.read_bytes() == before
    assert run("quantize", linear, "-o", linear, "--overwrite").exit_code == 0
    assert linear.read_bytes() != before


def test_reports_are_saved_as_pages_and_json(linear, tmp_path):
    for name in ("report.html", "report.json"):
        done = run("optimize", linear, "--report", tmp_path / name)
        assert done.exit_code == 0
        assert done.output.endswith(f"The report is in {tmp_path / name}.\n")
    assert "<table>" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["max_error"] == 0
    wrong = run("optimize", linear, "--report", tmp_path / "report.txt")
    assert wrong.exit_code == UNREADABLE
    assert "must end in .html or .json" in wrong.output


def test_sigterm_leaves_nothing_half_written(linear):
    """A change that is ended while it compares; the comparison is made to wait for it."""
    code = (
        "import os, signal, time\n"
        "from keras_blocks.cli.main import main\n"
        "from keras_blocks.export.files import changes\n"
        "def compare(source, written, **options):\n"
        "    print(written.name, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
        "changes.compare_files = compare\n"
        f"main(['quantize', {str(linear)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stdout.startswith(".linear.int8.onnx.")
    assert done.stderr == ""
    assert [p.name for p in linear.parent.iterdir()] == ["linear.onnx"]


# predict


@pytest.fixture
def row_sums(tmp_path):
    return onnx_files.row_sums(tmp_path / "sums.onnx")


def save_json(path, body):
    path.write_text(json.dumps(body))
    return path


def request(values, splits):
    def tensor(name, datatype, data):
        return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}

    return {"inputs": [tensor("x", "INT32", values), tensor("x.row_splits", "INT64", splits)]}


def test_predict_takes_nested_lists_a_protocol_request_and_an_npz_alike(tmp_path, row_sums):
    np.savez(tmp_path / "in.npz", **{"x": [1, 2, 9], "x.row_splits": [0, 2, 2, 3]})
    for inputs in (
        save_json(tmp_path / "rows.json", {"x": [[1, 2], [], [9]]}),
        save_json(tmp_path / "request.json", request([1, 2, 9], [0, 2, 2, 3])),
        tmp_path / "in.npz",
    ):
        result = run("predict", row_sums, inputs)
        assert result.exit_code == 0, result.output
        assert result.output == "y int32 [3]\n[3 0 9]\n"
        assert run("predict", row_sums, inputs, "-o", tmp_path / "out.json").output == ""
        assert json.loads((tmp_path / "out.json").read_text()) == {"y": [3, 0, 9]}


def test_ragged_outputs_are_rows_on_the_screen_and_in_json(tmp_path):
    path = onnx_files.tree(tmp_path / "tree.onnx")
    rows = {"tokens": [[5, 6], [], [7]], "parents": [[-1, 0], [], [-1]]}
    inputs = save_json(tmp_path / "in.json", rows)
    assert run("predict", path, inputs).output.splitlines()[1:] == [
        "row 0: [4 6]",
        "row 1: []",
        "row 2: [6]",
    ]
    run("predict", path, inputs, "-o", tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == {"y": [[4, 6], [], [6]]}
    run("predict", path, inputs, "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as archive:
        assert archive["y"].tolist() == [4, 6, 6]
        assert archive["y.row_splits"].tolist() == [0, 2, 2, 3]


def test_floats_in_json_are_the_shortest_that_mean_the_same(tmp_path):
    path = onnx_files.log(tmp_path / "log.onnx")
    inputs = save_json(tmp_path / "in.json", {"x": [2, 0, -1]})
    run("predict", path, inputs, "-o", tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == '{"y": [0.6931472, "-Infinity", "NaN"]}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.json", b"{", "not valid JSON"),
        ("in.json", b"\xff", "not valid JSON"),
        ("in.json", b"[" * 100_000, "not valid JSON"),
        ("in.json", b"[1]", "an object expected"),
        ("in.json", b'{"x": [[1, 12]]}', "input 'x': element 1 is 12, expected 0 to 9"),
        ("in.json", b'{"z": [[1]]}', "input 'x' is missing"),
        ("in.json", b'{"x": [[1]], "z": 1}', "input 'z' is unknown"),
        ("in.npz", b"no zip", "not an .npz file"),
        ("in.npz", b"", "not an .npz file"),
        ("in.npz", npz_bytes()[:100], "not an .npz file"),
        ("in.npz", npz_bytes().replace(b"\7\0\0\0", b"\6\0\0\0"), "not an .npz file"),
        ("in.npz", npy_bytes(), "not an .npz file"),
        ("in.csv", b"1,2", ".json, .npy or .npz file expected"),
    ],
)
def test_bad_input_files_are_one_line_and_exit_code_2(tmp_path, row_sums, name, content, message):
    (tmp_path / name).write_bytes(content)
    result = run("predict", row_sums, tmp_path / name)
    assert result.exit_code == UNREADABLE
    assert result.output.startswith("Error: ")
    assert message in result.output
    assert result.output.count("\n") == 1


def test_json_written_with_a_byte_order_mark_is_read(tmp_path, row_sums):
    (tmp_path / "in.json").write_text('{"x": [[1, 2]]}', encoding="utf-8-sig")
    assert run("predict", row_sums, tmp_path / "in.json").exit_code == 0


def test_a_model_with_layers_of_ones_own_is_told_how_to_be_exported(tmp_path):
    @keras.saving.register_keras_serializable("test_cli")
    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    inputs = keras.Input((2,))
    keras.Model(inputs, Own()(inputs)).save(tmp_path / "own.keras")
    keras.saving.get_custom_objects().pop("test_cli>Own")
    result = run("export", tmp_path / "own.keras", "-o", tmp_path / "own.onnx")
    assert result.exit_code == UNREADABLE
    assert "Could not locate class 'Own'" in result.output
    assert "--import" in result.output
    assert result.output.count("\n") == 1


def test_a_pickle_in_an_npz_is_not_run(tmp_path, row_sums):
    np.savez(tmp_path / "in.npz", x=np.array([print], dtype=object))
    result = run("predict", row_sums, tmp_path / "in.npz")
    assert result.exit_code == UNREADABLE
    assert "not an .npz file of plain arrays" in result.output


def test_an_output_file_of_another_kind_or_in_no_folder_is_one_line(tmp_path, row_sums):
    inputs = save_json(tmp_path / "in.json", {"x": [[1]]})
    for target, message in ((tmp_path / "out.txt", ".json or .npz"), (tmp_path / "a/b.json", "No")):
        result = run("predict", row_sums, inputs, "-o", target)
        assert result.exit_code == UNREADABLE
        assert message in result.output
        assert result.output.count("\n") == 1


def test_an_input_of_the_name_inputs_is_not_taken_for_a_request(tmp_path):
    contract = Contract((TensorSpec("inputs", "float32", ("batch",)),), ())
    plain = save_json(tmp_path / "in.json", {"inputs": [1, 2]})
    assert read_inputs(plain, contract) == {"inputs": [1, 2]}


def test_a_file_that_is_no_model_is_one_line(tmp_path):
    (tmp_path / "m.onnx").write_text("not ONNX")
    path = tmp_path / "m.onnx"
    for command, *rest in (
        ("inspect",),
        ("predict", save_json(tmp_path / "in.json", {})),
        ("compare", path),
        ("quantize",),
        ("float16",),
        ("optimize",),
    ):
        result = run(command, path, *rest)
        assert result.exit_code == UNREADABLE
        assert result.output.startswith(f"Error: {path}: ")
        assert result.output.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.json", "m.onnx"]


# the group itself


def test_help_reads_well_in_80_columns():
    for name in ("", *set(main.commands) - {"demo"}):  # whose help is the example's own
        lines = run(*filter(None, [name]), "--help").output.splitlines()
        assert max(map(len, lines)) <= WIDTH


def test_help_of_every_command_shows_an_example():
    for name, command in main.commands.items():
        result = run(name, "--help")
        assert result.exit_code == 0
        assert f"keras-blocks {name}" in result.output or name == "demo"
        assert command.get_short_help_str()
    assert "Exit codes" in run("--help").output


def test_the_version_is_the_package_version():
    assert run("--version").output == f"keras-blocks, version {kb.__version__}\n"


def test_debug_shows_the_traceback_that_is_hidden_otherwise(tmp_path):
    (tmp_path / "m.onnx").write_text("not ONNX")
    assert "Traceback" not in run("inspect", tmp_path / "m.onnx").output
    assert "Traceback" in run("--debug", "inspect", tmp_path / "m.onnx").output


def test_a_wrong_command_line_exits_with_2():
    for arguments in (
        ("inspect",),
        ("inspect", "nope.onnx"),
        ("serve", ".", "--port", "70000"),
        ("nope",),
        ("quantize", __file__, "--max-error", "-1"),
        ("optimize", __file__, "--level", "best"),
    ):
        assert run(*arguments).exit_code == UNREADABLE


def test_an_op_that_has_no_int8_form_is_a_wrong_command_line(linear):
    result = run("quantize", linear, "--op", "Softmax")
    assert result.exit_code == UNREADABLE
    assert "'Softmax' has no int8 form here; Conv, Gather" in " ".join(result.output.split())


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The package in a folder of its own, with a demo that reports how it was called."""
    monkeypatch.setattr(kb, "__file__", str(tmp_path / "keras_blocks" / "__init__.py"))
    program = tmp_path / "examples" / "function_names" / "main.py"
    program.parent.mkdir(parents=True)
    program.write_text("import sys; sys.exit(3 if sys.argv[1:] == ['--quick', '-h'] else 4)")
    return program


def test_demo_runs_the_program_of_the_checkout_with_its_arguments_and_exit_code(checkout):
    assert run("demo", "--quick", "-h").exit_code == 3


def test_demo_outside_a_checkout_says_where_it_is(checkout):
    checkout.unlink()
    result = run("demo")
    assert result.exit_code == 1
    assert "make demo" in result.output


def test_the_command_starts_without_tensorflow_onnxruntime_or_numpy():
    code = (
        "import sys\n"
        "from keras_blocks.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'tensorflow', 'keras', 'onnx', 'onnxruntime', 'numpy', 'rich', 'httptools'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_files_are_changed_and_compared_without_tensorflow(linear):
    code = (
        "import sys\n"
        "from keras_blocks.cli.main import main\n"
        "name = sys.argv[1]\n"
        "main(['quantize', name, '-o', name + '.8'], standalone_mode=False)\n"
        "main(['float16', name, '-o', name + '.16'], standalone_mode=False)\n"
        "main(['optimize', name, '-o', name + '.o'], standalone_mode=False)\n"
        "main(['compare', name, name + '.o'], standalone_mode=False)\n"
        "main(['inspect', name, '--html', name + '.html'], standalone_mode=False)\n"
        "sys.exit(', '.join({'tensorflow', 'keras', 'tf2onnx', 'torch'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(linear)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_predict_prints_json_for_programs(tmp_path, row_sums):
    inputs = save_json(tmp_path / "in.json", {"x": [[1, 2], []]})
    assert json.loads(run("predict", row_sums, inputs, "--json").output) == {"y": [3, 0]}


def test_predict_and_inspect_never_load_tensorflow(tmp_path, row_sums):
    inputs = save_json(tmp_path / "in.json", {"x": [[1, 2]]})
    code = (
        "import sys\n"
        "from keras_blocks.cli.main import main\n"
        f"main(['predict', {str(row_sums)!r}, {str(inputs)!r}], standalone_mode=False)\n"
        f"main(['inspect', {str(row_sums)!r}], standalone_mode=False)\n"
        "sys.exit(', '.join({'tensorflow', 'keras', 'onnx', 'orjson'} & set(sys.modules)) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "[3]" in done.stdout
