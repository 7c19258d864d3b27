"""The servers of the race: how each is started in its documented production settings."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from serving_models import CLASSES, STEPS, model_file

HERE = Path(__file__).parent
START_SECONDS = 90
STOP_SECONDS = 20
PEERS = {"mosec": "mosec onnxruntime", "mlserver": "mlserver onnxruntime uvloop<0.22",
         "triton": "nvidia-pytriton onnxruntime"}  # fmt: skip


@dataclass
class Server:
    """A running server.

    Args:
        process: its first process.
        url: of HTTP, up to the model's name.
        path: from the model's name to its infer endpoint.
        grpc: host:port of gRPC, if it has it.
        protocol: whether it speaks the Open Inference Protocol; Mosec does not.
        binary: whether it takes binary tensors over HTTP.
        mixed: the model that takes rows of any length, if it can serve one.
    """

    process: subprocess.Popen[bytes]
    url: str
    path: Callable[[str], str]
    grpc: str | None = None
    protocol: bool = True
    binary: bool = False
    mixed: str | None = None

    def processes(self) -> list[int]:
        """Its process and all below it."""
        pids, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            pids.append(pid)
            with contextlib.suppress(FileNotFoundError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
        return pids


def _infer(name: str) -> str:
    return f"/v2/models/{name}/infer"


@contextlib.contextmanager
def ours(repository: Path, workers: int) -> Iterator[Server]:
    """`keras-blocks serve`."""
    port, grpc = free_port(), free_port()
    command = [sys.executable, "-m", "keras_blocks.cli", "serve", str(repository)]
    command += ["--port", str(port), "--grpc-port", str(grpc), "--threads", "1"]
    command += ["--workers", str(workers)]
    with _running(command, port) as process:
        yield Server(
            process, f"http://127.0.0.1:{port}", _infer, f"127.0.0.1:{grpc}",
            binary=True, mixed="ragged",
        )  # fmt: skip


@contextlib.contextmanager
def ours_with_clocks(repository: Path) -> Iterator[tuple[Server, Callable[[], dict[str, float]]]]:
    """One process with a clock in each stage, and what ends it and reads the clocks: seconds of
    each stage since SIGUSR1."""
    port = free_port()
    with tempfile.NamedTemporaryFile(suffix=".json") as clocks:
        command = [sys.executable, str(HERE / "serving_stages.py"), str(repository), str(port)]
        with _running([*command, clocks.name], port) as process:

            def read() -> dict[str, float]:
                process.terminate()
                process.wait(STOP_SECONDS)
                return json.loads(Path(clocks.name).read_text())

            yield Server(process, f"http://127.0.0.1:{port}", _infer), read


@contextlib.contextmanager
def nothing(repository: Path) -> Iterator[Server]:
    """Our HTTP layer with one constant answer: what the protocol alone costs."""
    port = free_port()
    with _running([sys.executable, str(HERE / "serving_nothing.py"), str(port)], port) as process:
        yield Server(process, f"http://127.0.0.1:{port}", _infer)


@contextlib.contextmanager
def triton(repository: Path, python: Path, work: Path, instances: int) -> Iterator[Server]:
    """Triton with dynamic batching. The wheel brings its Python backend alone, so onnxruntime runs
    in that. It batches requests of equal length only."""
    binary = next(python.parent.parent.glob("lib/*/site-packages/pytriton/tritonserver"))
    folder = work / "triton"
    tensors = {
        "tiny": ("x", "TYPE_FP32", 64),
        "seq": ("tokens", "TYPE_INT32", STEPS),
        "free": ("tokens", "TYPE_INT32", -1),
    }
    for name, (tensor, kind, size) in tensors.items():
        target = folder / name / "1"
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "serving_triton.py", target / "model.py")
        shutil.copy(model_file(repository, name), target / "model.onnx")
        (folder / name / "config.pbtxt").write_text(
            f'name: "{name}" backend: "python" max_batch_size: 64 dynamic_batching {{ }}\n'
            f'input [{{ name: "{tensor}" data_type: {kind} dims: [{size}] }}]\n'
            f'output [{{ name: "y" data_type: TYPE_FP32 dims: [{CLASSES}] }}]\n'
            f"instance_group [{{ kind: KIND_CPU count: {instances} }}]\n"
        )
    port, grpc = free_port(), free_port()
    # Each start has its own: the processes of the one before may still run from theirs.
    backends = work / f"triton_backends_{port}"
    shutil.copytree(binary / "backends", backends, dirs_exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for file in (binary / "python_backend_stubs" / version).iterdir():
        shutil.copy(file, backends / "python" / file.name)
    command = [str(binary / "bin" / "tritonserver"), f"--model-repository={folder}"]
    command += [f"--backend-directory={backends}", f"--http-port={port}"]
    command += [f"--grpc-port={grpc}", "--allow-metrics=false", "--log-error=true"]
    libraries = [binary.parent.parent / "nvidia_pytriton.libs", binary / "external_libs"]
    extra = {
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(next(python.parent.parent.glob("lib/*/site-packages"))),
    }
    with _running(command, port, extra) as process:
        yield Server(
            process, f"http://127.0.0.1:{port}", _infer, f"127.0.0.1:{grpc}",
            binary=True, mixed="free",
        )  # fmt: skip


@contextlib.contextmanager
def mosec(repository: Path, python: Path, work: Path, instances: int) -> Iterator[Server]:
    """Mosec with dynamic batching, so many workers a model."""
    port = free_port()
    command = [str(python), str(HERE / "serving_mosec.py"), "--port", str(port)]
    extra = {"SERVING_REPOSITORY": str(repository), "SERVING_WORKERS": str(instances)}
    with _running(command, port, extra) as process:
        yield Server(process, f"http://127.0.0.1:{port}", lambda n: f"/{n}", protocol=False)


@contextlib.contextmanager
def mlserver(repository: Path, python: Path, work: Path) -> Iterator[Server]:
    """MLServer with adaptive batching, in parallel workers as it starts by itself."""
    port, grpc, metrics = free_port(), free_port(), free_port()
    folder = work / "mlserver"
    for name in ("tiny", "seq"):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "serving_mlserver.py", target / "serving_mlserver.py")
        settings = {
            "name": name,
            "implementation": "serving_mlserver.OnnxModel",
            "max_batch_size": 64,
            "max_batch_time": 0.001,
            "parameters": {"uri": str(model_file(repository, name)), "version": "1"},
        }
        (target / "model-settings.json").write_text(json.dumps(settings))
    ports = {"host": "127.0.0.1", "http_port": port, "grpc_port": grpc, "metrics_port": metrics}
    more = {"parallel_workers": 1, "metrics_dir": str(folder / "metrics")}
    (folder / "settings.json").write_text(json.dumps({**ports, **more}))
    command = [str(python.parent / "mlserver"), "start", str(folder)]
    with _running(command, port, {"PYTHONPATH": str(HERE)}) as process:
        yield Server(process, f"http://127.0.0.1:{port}", _infer, f"127.0.0.1:{grpc}")


def wait_for_answer(server: Server, name: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The first answer to a request; a server may load its models behind an open port."""
    request = urllib.request.Request(server.url + server.path(name), body, dict(headers))
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bytes(answer.read())
        except OSError:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise
            time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _running(
    command: list[str], port: int, extra: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, **(extra or {})}
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads holds up who writes much
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=errors, env=environment
        )
        try:
            _wait_for_port(process, port, errors)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, errors: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            raise RuntimeError(f"{process.args} ended with {process.returncode}: {text[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args} did not listen within {START_SECONDS} seconds")
