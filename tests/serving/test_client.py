import asyncio
import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_files
import pytest

from keras_blocks.errors import ContractError
from keras_blocks.serving import AsyncClient, Client, Limits, ServerError, load_repository

from .conftest import running
from .test_extensions import DTYPES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("double", "add_bias", "row_sums", "tree", "gather"):
        getattr(onnx_files, name)(folder / name / "1" / "model.onnx")
    onnx_files.add_bias(folder / "double" / "2" / "model.onnx")
    for datatype, (kind, _, _) in DTYPES.items():
        onnx_files.identity(folder / datatype / "1" / "model.onnx", kind)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with running(load_repository(folder, threads=1), limits=Limits(idle_seconds=1)) as url:
        yield url


@pytest.fixture
def client(url):
    with Client(url) as client:
        yield client


def test_arrays_and_lists_go_in_and_arrays_come_out(client):
    x, bias = np.float32([[1, 2]]), [[10.0]]
    answer = client.infer("add_bias", {"x": x, "bias": bias})
    assert {name: array.tolist() for name, array in answer.items()} == {
        "y": [[11, 12]],
        "minus_x": [[-1, -2]],
    }
    assert list(client.infer("add_bias", {"x": x, "bias": bias}, ["minus_x"])) == ["minus_x"]


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_goes_both_ways(client, datatype):
    data = DTYPES[datatype][2]
    assert client.infer(datatype, {"x": data})["y"].tolist() == data


def test_ragged_rows_and_trees_are_lists_of_rows(client):
    assert client.infer("row_sums", {"x": [[1, 2], [], [3]]})["y"].tolist() == [3, 0, 3]
    answer = client.infer("tree", {"tokens": [[1, 2, 3], [9]], "parents": [[-1, 0, 0], [-1]]})
    assert answer["y"].tolist() == [0, 2, 3, 8]
    assert answer["y.row_splits"].tolist() == [0, 3, 4]


def test_a_version_is_asked_for_by_its_number(client):
    assert client.infer("double", {"x": [[1, 2, 3]]}, version=1)["y"].tolist() == [[2, 4, 6]]
    assert client.metadata("double", 2)["versions"] == ["1", "2"]


def test_errors_carry_the_servers_message_and_status(client):
    with pytest.raises(ServerError, match="idx=7") as caught:
        client.infer("gather", {"x": [7]})
    assert caught.value.status == 400
    with pytest.raises(ServerError, match="'nope' is unknown") as caught:
        client.infer("nope", {})
    assert caught.value.status == 404


def test_what_cannot_become_an_input_is_not_sent(client):
    with pytest.raises(ContractError, match="'x'"):
        client.infer("double", {"x": [["a"]]}, version=1)
    with pytest.raises(ContractError, match="'bias' is missing"):
        client.infer("add_bias", {"x": [[1, 2]]})


def test_readiness(client):
    assert client.ready()
    assert client.ready("double", 2)
    assert not client.ready("nope")
    assert not Client("http://127.0.0.1:9", retries=0).ready()


def test_models_are_listed_loaded_and_unloaded(folder):
    with running(load_repository(folder)) as url, Client(url) as client:
        client.unload("tree")
        states = {entry["name"]: entry["state"] for entry in client.index()}
        assert (states["tree"], states["double"]) == ("UNAVAILABLE", "READY")
        client.load("tree")
        assert client.ready("tree")


def test_a_connection_that_the_server_has_closed_meanwhile_is_replaced(client):
    client.infer("row_sums", {"x": [[1]]})
    time.sleep(2.5)  # the server closes it after 1
    assert client.infer("row_sums", {"x": [[1]]})["y"].tolist() == [1]


def test_many_threads_share_a_client(client):
    def ask(index):
        return client.infer("double", {"x": [[index] * 3]}, version=1)["y"][0, 0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(100))) == [2 * index for index in range(100)]


def test_the_asyncio_client(url):
    async def ask():
        async with AsyncClient(url) as client:
            assert await client.ready()
            assert (await client.metadata("tree"))["name"] == "tree"
            answers = (client.infer("row_sums", {"x": [[i % 10, 1]]}) for i in range(20))
            return [answer["y"][0] for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == [i % 10 + 1 for i in range(20)]


@contextlib.contextmanager
def answering(*statuses):
    """A server that answers with these statuses in turn; its url, and how often it was asked."""
    asked = []

    def answer(listener):
        for status in statuses:
            connection, _ = listener.accept()
            with connection:
                asked.append(time.monotonic())
                connection.recv(65536)
                body = json.dumps({"error": f"status {status}"} if status != 200 else {}).encode()
                head = f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n"
                connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join()


def test_overload_is_tried_again_later_each_time_and_nothing_else_is():
    with answering(429, 503, 200) as (url, asked):
        assert Client(url).metadata("double") == {}
    assert asked[2] - asked[1] > 0.05
    with answering(503, 503) as (url, asked), pytest.raises(ServerError, match="status 503"):
        Client(url, retries=1).metadata("double")
    with answering(400) as (url, asked), pytest.raises(ServerError, match="status 400"):
        Client(url).metadata("double")
    assert len(asked) == 1


@pytest.mark.parametrize("url", ["", "ftp://host", "http://"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="expected one like http://localhost:8080"):
        Client(url)
