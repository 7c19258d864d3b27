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
from click.testing import CliRunner

from keras_blocks.cli.main import main
from keras_blocks.errors import ContractError
from keras_blocks.serving import AsyncClient, Client, Limits, ServerError, load_repository
from keras_blocks.serving.client.client import _wait, split_model_url

from ..conftest import running
from ..rest.test_extensions import DTYPES


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


def test_retry_after_is_waited_for_and_no_wait_is_endless():
    assert 3.0 <= _wait(0, "3") <= 3.1
    assert _wait(0, "86400") == _wait(30, None) == 10
    assert 0.05 <= _wait(0, None) <= 0.1
    assert _wait(0, "soon") <= 0.1


def test_what_is_no_model_metadata_is_told_as_such():
    with answering(200) as (url, _), pytest.raises(ServerError, match="not of the protocol"):
        Client(url).contract("double")


METADATA = json.dumps(
    {side: [{"name": name, "datatype": "FP32", "shape": [-1, 2]}] for side, name in
     (("inputs", "x"), ("outputs", "y"))}
).encode()  # fmt: skip


def output(**changes):
    whole = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2], **changes}
    return json.dumps({"outputs": [{k: v for k, v in whole.items() if v is not None}]}).encode()


STRANGE = {
    "no JSON": b"<html>",
    "nothing": b"",
    "no outputs": b"{}",
    "a list": b"[]",
    "deep JSON": b"[" * 100_000,
    "an output that is none": b'{"outputs": [null]}',
    "no such output": b'{"outputs": []}',
    "another number of elements": output(shape=[1, 3]),
    "a huge shape": output(shape=[10**9, 10**9]),
    "an unknown datatype": output(datatype="XX"),
    "bytes that are not there": output(data=None, parameters={"binary_data_size": 8}),
    "a size that is none": output(data=None, parameters={"binary_data_size": "8"}),
    "no name": output(name=None),
}


@contextlib.contextmanager
def serving_bytes(*bodies, head="HTTP/1.1 200 OK\r\nConnection: close\r\n"):
    def answer(listener):
        for body in bodies:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            yield client
        thread.join()


@pytest.mark.parametrize("case", STRANGE)
def test_answers_that_are_not_of_the_protocol_are_told_as_such(case):
    with (
        serving_bytes(METADATA, STRANGE[case]) as client,
        pytest.raises(ServerError, match=r"not of the protocol|lacks"),
    ):
        client.infer("m", {"x": [[1, 2]]})
    with (
        serving_bytes(STRANGE[case]) as client,
        pytest.raises(ServerError, match="not of the protocol"),
    ):
        client.contract("m")


def test_who_speaks_no_http_is_told_as_such_and_is_not_ready():
    head = "\x15\x03\x01\r\n"
    with serving_bytes(b"", b"", head=head) as client:
        assert not client.ready()
        with pytest.raises(ConnectionError, match="no whole answer of HTTP"):
            client.metadata("m")
    with serving_bytes(b'{"ready": "no"}') as client:
        assert not client.ready()


def test_a_server_that_points_elsewhere_is_not_followed_but_told():
    head = "HTTP/1.1 308 Moved\r\nLocation: https://there/\r\nConnection: close\r\n"
    with (
        serving_bytes(b"", head=head) as client,
        pytest.raises(ServerError, match="308 and points to https://there"),
    ):
        client.metadata("m")


def test_the_contract_has_the_ragged_tensors_of_both_sides(client):
    contract = client.contract("tree")
    assert [spec.name for spec in contract.inputs + contract.outputs if spec.ragged] == [
        "tokens",
        "parents",
        "y",
    ]


def test_a_model_is_named_by_its_url():
    assert split_model_url("https://h/base/v2/models/a%2Fb/infer") == (
        "https://h/base",
        "a/b",
        None,
    )
    for url in ("http://h:1", "http://h/v2/models/", "h/v2/models/x", "http://h/v2/models/x/stats"):
        with pytest.raises(ValueError, match="names no model"):
            split_model_url(url)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="expected one like http://localhost:8080"):
        Client(url)


# keras-blocks predict with a url


def predict(url, *arguments):
    return CliRunner().invoke(main, ["predict", str(url), *map(str, arguments)])


def test_who_asks_where_no_server_is_is_told_so():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client:
        assert not client.ready()
        with pytest.raises(ConnectionRefusedError, match=f"no server answers at 127.0.0.1:{port}"):
            client.infer("double", [[1.0]])


@pytest.fixture
def rows_file(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"x": [[1, 2], [], [9]]}))
    return path


def test_predict_asks_a_running_server_and_prints_what_the_file_gives(
    url, folder, rows_file, tmp_path
):
    asked = predict(f"{url}/v2/models/row_sums", rows_file, "--json")
    assert (asked.exit_code, json.loads(asked.output)) == (0, {"y": [3, 0, 9]})
    assert asked.output == predict(folder / "row_sums/1/model.onnx", rows_file, "--json").output
    trees = tmp_path / "trees.json"
    trees.write_text(json.dumps({"tokens": [[1, 2], [9]], "parents": [[-1, 0], [-1]]}))
    answer = predict(f"{url}/v2/models/tree/versions/1", trees, "--json").output
    assert json.loads(answer) == {"y": [[0, 2], [8]]}


def test_predict_takes_an_npy_file_for_a_models_one_input(url, tmp_path):
    np.save(tmp_path / "x.npy", np.float32([[1, 2, 3]]))
    answer = predict(f"{url}/v2/models/double/versions/1", tmp_path / "x.npy", "--json")
    assert json.loads(answer.output) == {"y": [[2, 4, 6]]}
    refused = predict(f"{url}/v2/models/tree", tmp_path / "x.npy")
    assert (refused.exit_code, "write them to a .npz file" in refused.output) == (2, True)


@pytest.mark.parametrize(
    ("path", "exit_code", "message"),
    [
        ("/v2/models/nope", 1, "'nope' is unknown"),
        ("/v2/models/double/versions/9", 1, "no version '9'"),
        ("/v2/models/add_bias", 2, "'x' is missing; the model takes 'x' (FP32 [batch, 2])"),
        ("/metrics", 2, "names no model"),
    ],
)
def test_predict_tells_what_the_server_says(url, tmp_path, path, exit_code, message):
    (tmp_path / "in.json").write_text("{}")
    result = predict(url + path, tmp_path / "in.json")
    assert (result.exit_code, message in result.output) == (exit_code, True), result.output


def test_predict_says_which_server_does_not_answer(rows_file):
    result = predict("http://127.0.0.1:9/v2/models/x", rows_file)
    assert result.exit_code == 1
    assert "http://127.0.0.1:9 does not answer" in result.output
