import asyncio
import contextlib
import shutil
import subprocess
import threading

import httpx
import onnx_files
import pytest

from keras_blocks.serving import Limits, load_repository
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.process.server import serving
from keras_blocks.serving.transport.sockets import open_listener

BODY_LIMIT = 200_000
MODELS = {
    "double": onnx_files.double,
    "add_bias": onnx_files.add_bias,
    "row_sums": onnx_files.row_sums,
    "tree": onnx_files.tree,
    "parse": onnx_files.parse,
    "column_sums": onnx_files.column_sums,
    "log": onnx_files.log,
    "gather": onnx_files.gather,
    "expand": onnx_files.expand,
}


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no Keras in these tests, and clearing its session takes a while."""


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        make(folder / name / "1" / "model.onnx")
    onnx_files.add_bias(folder / "double" / "2" / "model.onnx")
    onnx_files.double(folder / "double" / "10" / "model.onnx")
    return folder


@pytest.fixture(scope="session")
def repository(models_folder):
    return load_repository(models_folder, threads=1)


@pytest.fixture(scope="session")
def client(repository):
    limits = Limits(body_bytes=BODY_LIMIT, padded_steps=1000)
    with running(repository, limits=limits) as url, httpx.Client(base_url=url, timeout=30) as it:
        yield it


@pytest.fixture
def certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    files = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    return files


@contextlib.contextmanager
def running(repository, **settings):
    """A server in a thread, behind a real socket: its url."""
    with running_both(repository, **settings) as (url, _):
        yield url


@contextlib.contextmanager
def running_both(repository, observer=None, **settings):
    """A server in a thread, for both protocols: its url, and host:port of gRPC."""
    loop = asyncio.new_event_loop()
    started, stopping = threading.Event(), asyncio.Event()

    async def run(*listeners):
        async with serving(Service(repository, **settings), *listeners, observer=observer):
            started.set()
            await stopping.wait()

    def target(*listeners):
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(run(*listeners))

    with open_listener("127.0.0.1", 0) as http, open_listener("127.0.0.1", 0) as grpc:
        thread = threading.Thread(target=target, args=(http, grpc))
        thread.start()
        try:
            while not started.wait(0.01):
                assert thread.is_alive()
            ports = [listener.getsockname()[1] for listener in (http, grpc)]
            yield f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join()
