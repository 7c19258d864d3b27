"""Who may import whom, what an import loads, and what a missing package is answered with."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("keras_blocks", "export", "serving")
    for path in (ROOT / folder).rglob("*.py")
    # The links keras_blocks/export and keras_blocks/serving show the same files again.
    if not {("keras_blocks", "export"), ("keras_blocks", "serving")}
    & {path.relative_to(ROOT).parts[:2]}
)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: these tests read files and start other processes."""


FRAMEWORKS = {"keras", "numpy", "tensorflow"}
SHARED = {
    "keras_blocks.errors",
    "keras_blocks.ragged",
    "keras_blocks.recurrent.ragged_rnn",
    "keras_blocks.recurrent.loop",
    "keras_blocks.windows.short_inputs",
}
TREES = {"keras_blocks.trees", "keras_blocks.trees.buckets", "keras_blocks.contract.tree_rules"}
RULES = {
    "keras_blocks/__init__.py": {"keras_blocks.errors", "keras_blocks.lazy"},
    "keras_blocks/lazy.py": {"keras_blocks.errors"},
    "keras_blocks/contract/spec.py": set(),
    "keras_blocks/errors.py": set(),
    "keras_blocks/cli/quiet.py": set(),
    "keras_blocks/ragged*.py": FRAMEWORKS | SHARED,
    "keras_blocks/recurrent/loop.py": FRAMEWORKS | SHARED,
    "keras_blocks/windows/short_inputs.py": FRAMEWORKS | SHARED,
    "keras_blocks/nonlinearities.py": FRAMEWORKS | SHARED,
    "keras_blocks/contract/tree_rules.py": {"keras_blocks.errors"},
    "keras_blocks/trees/buckets.py": {"tensorflow"},
    "keras_blocks/trees/tree.py": FRAMEWORKS | SHARED | TREES | {"nltk", "keras_blocks.mechanisms"},
    # A unit knows units, a mechanism mechanisms; no mechanism knows a concrete unit.
    "keras_blocks/units/*": FRAMEWORKS | SHARED | {"keras_blocks.units"},
    "keras_blocks/mechanisms/*": FRAMEWORKS | SHARED | TREES | {"keras_blocks.mechanisms"},
    # All of the layers, but neither the server nor the command line.
    "export/*": FRAMEWORKS
    | SHARED
    | TREES
    | {"onnx", "onnxruntime", "rich", "tf2onnx"}
    | {
        "keras_blocks.contract",
        "keras_blocks.export",
        "keras_blocks.lazy",
        "keras_blocks.mechanisms",
        "keras_blocks.nonlinearities",
        "keras_blocks.units",
    },
    # No TensorFlow, no Keras, no layers, no export.
    "serving/*": {"google.protobuf", "hpack", "httptools", "numpy", "onnxruntime", "orjson", "rich"}
    | {"opentelemetry"}
    | {"keras_blocks.contract", "keras_blocks.errors", "keras_blocks.lazy", "keras_blocks.serving"},
    # It sees everything.
    "keras_blocks/cli*.py": {"click", "keras", "keras_blocks"},
}


def rule_of(path):
    matching = [pattern for pattern in RULES if fnmatch(path.as_posix(), pattern)]
    assert len(matching) == 1, f"{path} needs exactly one rule in RULES, it has {matching}"
    return RULES[matching[0]]


def imports(tree, path):
    """Every imported module of a file, wherever the import stands; those for checkers left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: import it by its full name"
            # `from keras_blocks import trees` imports keras_blocks.trees.
            whole = node.module == "keras_blocks" or node.module.startswith("keras_blocks.")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if whole else [node.module]
        else:
            yield from imports(node, path)


def forbidden(path):
    allowed = rule_of(path)
    for name in imports(ast.parse((ROOT / path).read_text()), path):
        if name.partition(".")[0] in sys.stdlib_module_names or name == "keras_blocks":
            continue
        if not any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed):
            yield name


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_a_file_imports_only_what_its_room_may(path):
    assert list(forbidden(path)) == []


def test_the_walk_sees_imports_inside_functions_and_leaves_out_those_for_checkers():
    source = (
        "if TYPE_CHECKING:\n    import a\n"
        "def f():\n    try:\n        import b.c\n    except E:\n        from d import e\n"
        "from keras_blocks import trees\n"
    )
    assert list(imports(ast.parse(source), "x")) == ["b.c", "d", "keras_blocks.trees"]


def test_tf2onnx_is_driven_in_one_place():
    users = {
        path.as_posix()
        for path in SOURCES
        if any(n.startswith("tf2onnx") for n in imports(ast.parse((ROOT / path).read_text()), path))
    }
    handlers = {path for path in users if path.startswith("export/lowerings/")}
    # export/__init__.py only looks whether it is installed.
    assert users - handlers <= {"export/__init__.py", "export/conversion/tf2onnx_driver.py"}


# What an import loads


def python(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
    )


def loaded_by(code):
    """The installed packages that a program has loaded when it ends."""
    done = python(f"{code}\nimport sys; print('LOADED', *sys.modules)")
    assert done.returncode == 0, done.stderr
    names = done.stdout.partition("LOADED")[2].split()
    return {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)


def test_import_keras_blocks_loads_no_other_package():
    # What `python -c pass` loads too comes from the environment, not from us.
    ours = loaded_by("import keras_blocks") - loaded_by("pass")
    assert ours == {"keras_blocks"}


@pytest.mark.parametrize("name", ["Client", "AsyncClient", "ServerError"])
def test_a_client_loads_numpy_and_nothing_that_runs_models_or_serves(name):
    ours = loaded_by(f"from keras_blocks.serving import {name}") - loaded_by("import numpy")
    assert ours == {"keras_blocks"}


def test_the_help_of_the_command_line_loads_no_model_and_no_numbers():
    code = "from keras_blocks.cli.main import main\nmain(['--help'], standalone_mode=False)"
    assert loaded_by(code) - loaded_by("import click") == {"keras_blocks"}


@pytest.mark.parametrize(
    "first",
    [
        "import keras_blocks",
        "import keras",
        "import keras_blocks, tensorflow",
        "import keras_blocks; keras_blocks.TreeCell",
        "from keras_blocks import trees",
        "from keras_blocks.units.vanilla import Vanilla",
        "import keras_blocks.nonlinearities",
    ],
)
def test_keras_knows_the_layers_whichever_is_imported_first(first):
    code = (
        "import importlib.util\n"
        f"{first}\n"
        "importlib.util.find_spec('keras')\n"  # a look is not an import
        "import keras, keras_blocks\n"
        "known = keras.saving.get_custom_objects().values()\n"
        "print([known_class.__name__ for known_class in known].count('GRU'))"
    )
    done = python(code)
    assert done.stdout.split() == ["1"], done.stderr


def test_serving_loads_no_tensorflow_and_no_keras():
    everything = (
        "import pkgutil, importlib, keras_blocks.serving as serving\n"
        "for module in pkgutil.iter_modules(serving.__path__):\n"
        "    importlib.import_module(f'keras_blocks.serving.{module.name}')\n"
        "for name in serving.__all__: getattr(serving, name)\n"
    )
    loaded = loaded_by(everything)
    assert {"onnxruntime", "httptools"} <= loaded
    assert not loaded & {"tensorflow", "keras", "tf2onnx", "onnx"}


def test_import_export_loads_neither_tensorflow_nor_onnxruntimes_tools():
    ours = loaded_by("import keras_blocks.export") - loaded_by("pass")
    assert ours == {"keras_blocks"}


def test_threads_can_be_chosen_when_everything_is_imported():
    # TensorFlow takes the number until its first tensor is made.
    done = python(
        "import keras, keras_blocks\n"
        "from keras_blocks.export.lowerings import registry, trees\n"
        "import tensorflow as tf\n"
        "tf.config.threading.set_intra_op_parallelism_threads(1)"
    )
    assert done.returncode == 0, done.stderr


def test_files_are_changed_without_tensorflow_and_tools_load_when_they_are_used():
    code = (
        "import sys, keras_blocks.export as export\n"
        "for name in ('quantize', 'to_float16', 'optimize', 'compare_files', 'ChangeReport'):\n"
        "    getattr(export, name)\n"
        "tools = [n for n in sys.modules if n.startswith('onnxruntime.quantization')]\n"
        "tools += [n for n in sys.modules if n.startswith('onnxruntime.transformers')]\n"
        "assert not tools, tools"
    )
    assert not loaded_by(code) & {"tensorflow", "keras", "tf2onnx"}


# What a missing package is answered with

BLOCK = (
    "import sys\n"
    "class Blocker:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.partition('.')[0] in BLOCKED:\n"
    "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    "sys.meta_path.insert(0, Blocker())\n"
)


def without(packages, code, *arguments):
    return python(f"BLOCKED = {set(packages)!r}\n{BLOCK}{code}", *arguments)


@pytest.mark.parametrize(
    ("packages", "code", "extra"),
    [
        (["tensorflow"], "import keras_blocks; keras_blocks.Vanilla", "tensorflow"),
        (["keras"], "from keras_blocks import TreeRecursive", "tensorflow"),
        (["tensorflow"], "from keras_blocks.export import export_onnx", "tensorflow"),
        (["onnx"], "from keras_blocks.export import quantize", "tensorflow"),
        (["httptools"], "from keras_blocks.serving import serve", "serving"),
        (["orjson"], "from keras_blocks.serving import serve", "serving"),
    ],
    ids=str,
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(packages, code, extra):
    done = without(packages, code)
    last = done.stderr.strip().splitlines()[-1]
    assert "MissingExtraError" in last
    assert f"needs the package '{packages[0]}'" in last
    assert last.endswith(f"pip install 'keras-blocks[{extra}]'")


@pytest.mark.parametrize(
    ("packages", "command", "extra"),
    [
        (["tensorflow", "keras"], ["export", __file__, "-o", "x.onnx"], "tensorflow"),
        (["tensorflow", "keras"], ["check", __file__, __file__], "tensorflow"),
        (["httptools"], ["serve", "."], "serving"),
    ],
    ids=str,
)
def test_a_command_without_its_extra_prints_one_line_and_exits_with_1(packages, command, extra):
    done = without(packages, "from keras_blocks.cli.main import main; main(sys.argv[1:])", *command)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(f"pip install 'keras-blocks[{extra}]'\n")


def test_models_and_their_metadata_need_only_the_base_install(tmp_path):
    import onnx_files

    path = onnx_files.row_sums(tmp_path / "m.onnx")
    code = (
        "from keras_blocks.serving import Model, load_repository\n"
        "print(Model.load(sys.argv[1]).predict({'x': [[1, 2], [3]]})['y'].tolist())"
    )
    extras = ["tensorflow", "keras", "tf2onnx", "onnx", "orjson", "httptools", "hpack"]
    done = without(extras, code, str(path))
    assert done.stdout == "[3, 3]\n", done.stderr
