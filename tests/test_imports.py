"""What an import loads, and what a missing package is answered with."""

import subprocess
import sys

import pytest


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: these tests read files and start other processes."""


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
        "for module in pkgutil.walk_packages(serving.__path__, 'keras_blocks.serving.'):\n"
        "    importlib.import_module(module.name)\n"
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
