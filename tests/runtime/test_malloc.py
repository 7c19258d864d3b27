"""What a server takes beside onnxruntime, which holds the models in any case."""

import asyncio
import contextlib
import gc
import re
import subprocess
import sys
import time
import types
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_files
import pytest
from onnx import TensorProto, helper

from keras_blocks.serving import Client, load_repository
from keras_blocks.serving.inference.service import Service

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


# What runs and models needed


def large_inside(path):
    """y = the sum of e to the e to the zeros of [n, 1000]: as much memory inside as n says."""
    node = onnx_files.node
    return onnx_files.save(
        path,
        [
            node("Concat", ["n", "width"], ["shape"], axis=0),
            node("Expand", ["zero", "shape"], ["zeros"]),
            node("Exp", ["zeros"], ["ones"]),
            node("Exp", ["ones"], ["powers"]),
            node("ReduceSum", ["powers"], ["y"], keepdims=0),
        ],
        [onnx_files.tensor("n", TensorProto.INT64, [1])],
        [onnx_files.tensor("y", TensorProto.FLOAT, [])],
        [
            onnx_files.constant("zero", TensorProto.FLOAT, [1], [0.0]),
            onnx_files.constant("width", TensorProto.INT64, [1], [1000]),
        ],
    )


def weights(path, size=2**24):
    """y = x plus the last of many weights."""
    table = onnx.numpy_helper.from_array(np.ones(size, "float32"), "table")
    path.parent.mkdir(parents=True, exist_ok=True)
    return onnx_files.save(
        path,
        [onnx_files.node("Gather", ["table", "x"], ["y"])],
        [onnx_files.tensor("x", TensorProto.INT64, ["n"])],
        [onnx_files.tensor("y", TensorProto.FLOAT, ["n"])],
        [table],
    )


@contextlib.contextmanager
def served(folder, *options):
    """A client of a server, and the memory of all of its processes."""
    command = ["-m", "keras_blocks.cli", "serve", folder, "--port", "0", "--grpc-port", "0"]
    with started(*command, "--threads", "1", *options) as process:
        url = next(
            re.search(r"http://\S+", line)[0] for line in process.stdout if "http://" in line
        )
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()

        def memory():
            pids = [process.pid, *map(int, children)]
            return sum(resident_bytes(types.SimpleNamespace(pid=pid)) for pid in pids)

        with Client(url) as client:
            yield client, memory


def falls_below(memory, limit):
    for _ in range(300):
        if memory() < limit:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_models_of_the_start_are_freed_when_they_are_unloaded(workers, tmp_path):
    weights(tmp_path / "large" / "1" / "model.onnx")
    with served(tmp_path, "--workers", workers) as (client, memory):
        loaded = memory()
        for _ in range(3):
            client.unload("large")
            assert falls_below(memory, loaded - int(workers) * 40 * 2**20)
            client.load("large")
            assert memory() < loaded + int(workers) * 40 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("arena", ["true", "false"])
def test_what_the_inside_of_a_run_took_is_given_back_soon_though_nothing_else_runs(arena, tmp_path):
    large_inside(tmp_path / "m" / "1" / "model.onnx")
    (tmp_path / "m" / "model.toml").write_text(f"arena = {arena}")
    with served(tmp_path) as (client, memory):
        client.infer("m", [1])
        before = memory()
        assert client.infer("m", [50_000])["y"] > 0  # 200 MB each of three tensors
        assert falls_below(memory, before + 40 * 2**20)
        assert client.infer("m", [1])["y"] > 0


def test_no_model_of_the_start_waits_for_the_cyclic_collector(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")

    async def unload():
        service = Service(load_repository(tmp_path))
        await service.open()
        model = weakref.ref(service.batcher_for("double").model)
        done = asyncio.get_running_loop().create_future()
        x = {"x": np.ones((1, 3), "float32")}
        service.infer(service.batcher_for("double"), x, None, None, done.set_result)
        await done
        await service.unload("double")
        await asyncio.sleep(0.1)
        freed = model() is None
        await service.close()
        return freed

    gc.disable()
    try:
        assert asyncio.run(unload())
    finally:
        gc.enable()
