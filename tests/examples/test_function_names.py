import json
import random
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import data
import functions
import keras
import models
import numpy as np
import plots
import pytest
import server
import tensorflow as tf
import train

ROUNDING = 1e-6  # sums of a few float32 numbers
PROGRAM = Path(__file__).parents[2] / "examples" / "function_names"
SOURCE = '''
class Box:
    @property
    @set_title.register
    def set_title(self, title: str = "set_title") -> "set_title":
        """Set the title: set_title."""
        super().set_title(title)
        self._setTitle2 = [self.set_title(part) for part in title]

        def helper():
            nonlocal title
            return set_title
        return self.set_subtitle(f"set_title {title}")
'''


def library(folder: Path, **modules: str) -> list[functions.Function]:
    for name, source in modules.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return functions.read_functions(verbs=20, root=folder)


def many(module: str, verb: str, count: int) -> list[functions.Function]:
    tree = functions.trees.from_nested(["FunctionDef", verb])
    return [
        functions.Function(module, f"{verb}_{i}", verb, f"{module}{verb}{i}", (verb, module), tree)
        for i in range(count)
    ]


def test_names_are_split_into_their_words():
    assert functions.words("_getHTTPHeader_v2") == ["get", "http", "header", "v", "2"]
    assert functions.words("__") == []


def test_a_function_shows_its_own_name_nowhere(tmp_path):
    (function,) = (f for f in library(tmp_path, box=SOURCE) if f.name == "set_title")
    assert function.verb == "set"
    for view in (function.text, " ".join(function.tokens), " ".join(function.tree.labels)):
        assert "set_title" not in view
        assert "settitle" not in view.lower()
        assert "set title" not in view
        assert "register" not in view
    assert "self.own(part)" in function.text
    assert "self.own_2 = " in function.text
    assert "self.set_subtitle" in function.text


def test_strings_and_docstrings_are_not_read(tmp_path):
    (function, _) = library(tmp_path, box=SOURCE)
    assert "title:" not in function.text.replace("title: str", "")
    assert functions.read_functions(5, tmp_path)[0].text == function.text


def test_dunders_tests_and_unreadable_files_are_left_out(tmp_path):
    found = library(
        tmp_path,
        good="def get_it(x): return x\ndef __init__(self): self.y = 0",
        broken="def get_what(:",
        test__test_it="def get_tested(x): return x + 1",
        package__tests__test_it="def get_tested(x): return x + 2",
        package__inner="def is_it(x): return x + 3",
    )
    assert [(f.module, f.name) for f in found] == [("good", "get_it"), ("package", "is_it")]


def test_functions_of_the_same_text_are_read_once(tmp_path):
    found = library(
        tmp_path,
        a="def get_a(x):\n    return get_a(x)",
        b="def get_b(x):\n    'another'\n    return get_b(x)",
        c="def find(x):\n    return find(x) + 1",
    )
    assert [f.name for f in found] == ["get_a", "find"]


def test_verbs_are_those_that_the_most_modules_use(tmp_path):
    library(tmp_path, a="def get_1(x): return x\n", b="def get_2(x): return x + 1\n")
    crowd = "\n".join(f"def winfo_{i}(x): return x * {i}" for i in range(9))
    library(tmp_path, c=crowd)
    assert {f.verb for f in functions.read_functions(1, tmp_path)} == {"get"}


def test_the_tree_has_the_words_of_names_as_leaves(tmp_path):
    (function,) = library(tmp_path, a="def is_it(line_count): return line_count == 0")
    labels, parents = function.tree.labels, function.tree.parents
    place = labels.index("Compare")
    below = [labels[i] for i, parent in enumerate(parents) if parent == place]
    assert below == ["Name", "Eq", "Constant"]
    name = labels.index("Name")
    assert [labels[i] for i, p in enumerate(parents) if p == name] == ["line", "count"]


def test_no_module_is_in_two_parts_and_the_seed_decides():
    found = [f for i in range(20) for f in many(f"m{i}", random.Random(i).choice("ab"), 10)]
    split = data.split_by_module(found, seed=3)
    parts = [{f.module for f in part} for part in (split.train, split.valid, split.test)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert [len(part) for part in (split.train, split.valid, split.test)] == [140, 20, 40]
    assert data.split_by_module(found, seed=3) == split
    assert data.split_by_module(found, seed=4) != split


def test_only_words_of_several_modules_are_known():
    found = [f for name in ("m1", "m2", "m3") for f in many(name, "get", 4)]
    known = data.vocabulary(found, lambda function: function.tokens)
    assert known.labels == ("get",)


def test_training_batches_hide_words_and_keep_trees():
    found = many("m", "get", 3 * data.BATCH)
    known = data.trees.Vocabulary(["FunctionDef", "get"])
    inputs = data.tree_inputs(found, known)
    labels = np.zeros(len(found), "int64")
    sizes = [2] * len(found)
    (plain, _), *_ = data.batches(inputs, labels, sizes, training=False)
    assert plain["nodes"].to_list() == [[1, 2]] * data.BATCH
    hidden = np.concatenate(
        [x["nodes"].values for x, _ in data.batches(inputs, labels, sizes, training=True)]
    )
    assert 0.05 < np.mean(hidden == 0) < 0.3
    parents = next(iter(data.batches(inputs, labels, sizes, training=True)))[0]["parents"]
    assert parents.to_list() == [[-1, 0]] * data.BATCH


@pytest.mark.parametrize(
    ("make", "view"),
    [
        (models.bag_model, data.bag_inputs),
        (models.tree_model, data.tree_inputs),
        (models.sequence_model, data.sequence_inputs),
    ],
)
def test_each_model_learns_to_tell_two_verbs_apart(make, view):
    found = many("m", "get", 32) + many("m", "set", 32)
    known = data.trees.Vocabulary(["FunctionDef", "get", "set"])
    labels = np.repeat([0, 1], 32)
    batches = data.batches(view(found, known), labels, [1] * 64, training=False)
    console = train.Console(quiet=True)
    trained = train.train(make(len(known), 2), batches, batches, 12, 0.02, console)
    assert trained.history["valid"][trained.best_epoch - 1] == 1


def test_counts_add_up_the_nodes_of_each_tree():
    rng = np.random.default_rng(0)
    rows = [rng.random((length, 3)).astype("float32") for length in (4, 0, 1)]
    nodes = tf.RaggedTensor.from_row_lengths(np.concatenate(rows), [4, 0, 1])
    expected = [np.log(1 + row.sum(axis=0)) for row in rows]
    np.testing.assert_allclose(models.LogCounts()(nodes), expected, rtol=ROUNDING)


def test_the_tree_model_sees_what_a_word_stands_in():
    """Two trees of the same labels, which a bag cannot tell apart."""
    known = data.trees.Vocabulary(["Return", "Assign", "self"])
    places = [["Assign", ["Return", "self"]], ["Assign", "Return", "self"]]
    found = [
        functions.Function("m", "get", "get", text, (), functions.trees.from_nested(nested))
        for text, nested in zip("ab", places, strict=True)
    ]
    bag = data.bag_inputs(found, known)["counts"].numpy()
    assert (bag[0] == bag[1]).all()
    keras.utils.set_random_seed(0)
    first, second = models.tree_model(len(known), 2)(data.tree_inputs(found, known)).numpy()
    assert np.abs(first - second).max() > 10 * ROUNDING


def test_ragged_inputs_are_sent_as_values_and_row_splits():
    tokens = tf.ragged.constant([[3, 1], [], [4]], dtype="int32")
    values, splits = server._tensors("tokens", tokens)
    assert values == {"name": "tokens", "shape": [3], "datatype": "INT32", "data": [3, 1, 4]}
    assert splits["name"] == "tokens.row_splits"
    assert splits["data"] == [0, 2, 2, 3]


def test_plots_are_written(tmp_path):
    plots.accuracy_bars({"majority": 0.3, "tree": 0.4}, 10, tmp_path / "a.png")
    plots.learning_curves({"tree": {"train": [0.1, 0.2], "valid": [0.2, 0.1]}}, tmp_path / "b.png")
    plots.confusion_matrix(
        np.array([0, 1]), np.array([1, 1]), ["get", "set"], "tree", tmp_path / "c.png"
    )
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in "abc")


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM / "main.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").touch()
    done = run("--output", tmp_path / "file" / "results")
    assert done.returncode == 1
    assert "cannot be written" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_the_demo_trains_exports_serves_and_sums_up(tmp_path):
    done = run("--quick", "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert all(facts["proof"]["ok"] for facts in summary["models"].values())
    assert summary["served"]["largest_difference"] <= 1e-5
    assert summary["served"]["answers"] == 3 * summary["functions"]["test"]
    held_out, learned = (set(summary["modules"][part]) for part in ("test", "train"))
    assert not held_out & learned
    for name in ("accuracy", "learning_curves", "confusion_matrix"):
        assert (tmp_path / f"{name}.png").is_file()


def test_a_port_that_is_taken_stops_the_demo_with_the_reason(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(server.ServerError, match=f"the server ended with 1: .*{port}"),
            server.served(tmp_path, port, tmp_path / "server.log"),
        ):
            pass
