"""A server in a process of its own, and questions over HTTP, as any client would ask them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from data import Inputs

PATIENCE = 60  # seconds until the server must be up; it takes one or two


class ServerError(RuntimeError):
    """The server did not start, or refused a question."""


@contextmanager
def served(models: Path, port: int, log: Path) -> Iterator[str]:
    """Runs `keras-blocks serve` and gives its address; stops it whatever happens.

    Args:
        models: the folder of models.
        port: int, 0 takes a free one.
        log: where the server's output goes.
    """
    program = Path(sys.executable).with_name("keras-blocks")
    command = [str(program), "serve", str(models), "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield _address(process, log)
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen, log: Path) -> str:
    """The address that the server announces when it is ready."""
    tick = threading.Event()
    for _ in range(PATIENCE * 10):
        said = log.read_text()
        if found := re.search(r"Serving on (http://\S+)", said):
            return found.group(1)
        if process.poll() is not None:
            raise ServerError(f"the server ended with {process.returncode}: {said.strip()}")
        tick.wait(0.1)
    raise ServerError(f"the server did not start within {PATIENCE} s; its words are in {log}")


def ask(address: str, model: str, inputs: Inputs) -> np.ndarray:
    """The answers of a model; a ragged input `x` is sent as `x` and `x.row_splits`."""
    body = {"inputs": [tensor for name, x in inputs.items() for tensor in _tensors(name, x)]}
    request = urllib.request.Request(
        f"{address}/v2/models/{model}/infer",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            (output,) = json.load(response)["outputs"]
    except urllib.error.HTTPError as error:
        raise ServerError(f"{model}: HTTP {error.code}: {error.read().decode()}") from error
    return np.array(output["data"], "float32").reshape(output["shape"])


def _tensors(name: str, x: tf.Tensor | tf.RaggedTensor) -> Iterator[dict]:
    if isinstance(x, tf.RaggedTensor):
        yield _tensor(name, x.values.numpy())
        yield _tensor(f"{name}.row_splits", x.row_splits.numpy())
    else:
        yield _tensor(name, x.numpy())


def _tensor(name: str, array: np.ndarray) -> dict:
    datatypes = {"int32": "INT32", "int64": "INT64", "float32": "FP32"}
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatypes[array.dtype.name],
        "data": array.ravel().tolist(),
    }
