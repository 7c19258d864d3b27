import contextlib
import threading
import time

import httpx
import onnx_files
import pytest
import uvicorn

from keras_blocks.serving import Limits, create_app, load_repository
from keras_blocks.serving.server import open_listener

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
    app = create_app(repository, limits=Limits(body_bytes=BODY_LIMIT, padded_steps=1000))
    with running(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


@contextlib.contextmanager
def running(app):
    """The app behind a real socket, in a thread."""
    with open_listener("127.0.0.1", 0) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
