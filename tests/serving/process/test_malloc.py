"""What a server takes beside onnxruntime, which holds the models in any case."""

import contextlib
import re
import subprocess
import sys
from pathlib import Path

import onnx_files
import pytest
from onnx import TensorProto, helper

from keras_blocks.serving import Client

LIMIT_BYTES = 100 * 2**20
REQUESTS = 500
BARE = """
import sys, numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {"x": numpy.zeros((1, 3), "float32")})
print("ready", flush=True)
sys.stdin.read()
"""


def resident_bytes(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@contextlib.contextmanager
def started(*arguments):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, *arguments], **pipes) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.terminate()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_takes_less_than_100_mb_beside_onnxruntime(tmp_path):
    file = onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with started("-c", BARE, file) as process:
        assert process.stdout.readline() == "ready\n"
        bare = resident_bytes(process)
    command = ["-m", "keras_blocks.cli", "serve", tmp_path, "--port", "0", "--grpc-port", "0"]
    with started(*command, "--threads", "1") as process:
        url = next(
            re.search(r"http://\S+", line)[0] for line in process.stdout if "http://" in line
        )
        with Client(url) as client:
            for _ in range(REQUESTS):
                client.infer("double", {"x": [[1, 2, 3]]})
        assert resident_bytes(process) - bare < LIMIT_BYTES


LARGE = """
import re, sys, numpy
from pathlib import Path
from keras_blocks.runtime.session import Session

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

session = Session(sys.argv[1], 1)
session.run({"x": numpy.zeros((1, 3), "float32")}, ["y"])
before = resident()
session.run({"x": numpy.zeros((2**22, 3), "float32")}, ["y"])
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_large_run_took_is_given_back(tmp_path):
    nodes = [
        helper.make_node("Exp", ["x"], ["powers"]),
        helper.make_node("Exp", ["powers"], ["more"]),
        helper.make_node("ReduceSum", ["more"], ["y"]),
    ]
    inputs = [onnx_files.tensor("x", TensorProto.FLOAT, ["batch", 3])]
    outputs = [onnx_files.tensor("y", TensorProto.FLOAT, [1, 1])]
    file = onnx_files.save(tmp_path / "model.onnx", nodes, inputs, outputs)
    done = subprocess.run(
        [sys.executable, "-c", LARGE, file], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 24 * 1024  # kB; one tensor of it has 48
