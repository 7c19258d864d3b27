"""No process of ours has onnxruntime look for where to send telemetry, unless the user wants it."""

import os
import subprocess
import sys

import onnx_files
import pytest

VARIABLE = "ORT_DISABLE_TELEMETRY"
WAYS = {
    "a model": "from keras_blocks.serving import Model; Model.load(sys.argv[1])",
    "the server": "import keras_blocks.serving.process.server",
    "a worker": "import keras_blocks.serving.process.worker",
    "the command line": "from keras_blocks.cli.main import main\n"
    "main(['inspect', sys.argv[1]], standalone_mode=False)",
    "a changed file": "from keras_blocks.export import compare_files\n"
    "compare_files(sys.argv[1], sys.argv[1], timed=False)",
    "the export": "import keras_blocks.runtime.runner",
}
ENDS = """
import os
assert 'onnxruntime' in sys.modules
print(os.environ['ORT_DISABLE_TELEMETRY'])
"""


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: these tests start other processes."""


def ran(code, tmp_path, **variables):
    """The last line that a program prints, and what it left in its home."""
    file = onnx_files.double(tmp_path / "model.onnx")
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if name != VARIABLE}
    kept = {name: value for name, value in kept.items() if not name.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{ENDS}", str(file)],
        env={**kept, "HOME": str(home), **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1], [path.name for path in home.rglob("Microsoft")]


@pytest.mark.parametrize("way", WAYS)
def test_telemetry_is_off_before_onnxruntime_is_imported(way, tmp_path):
    assert ran(WAYS[way], tmp_path) == ("1", [])


def test_who_wants_telemetry_gets_it(tmp_path):
    assert ran(WAYS["a model"], tmp_path, ORT_DISABLE_TELEMETRY="0")[0] == "0"


def test_the_tests_themselves_have_it_off():
    assert os.environ.get(VARIABLE)
