"""Triton's own clients, unmodified. They pin an older protobuf than TensorFlow's, so that they live
in an environment of their own, which `make test-tritonclient` makes.
"""

import asyncio
import queue

import numpy as np
import pytest

from keras_blocks.serving import load_repository

from ..conftest import running_both

ELSEWHERE = "its environment is made by `make test-tritonclient`"
http = pytest.importorskip("tritonclient.http", reason=ELSEWHERE)
grpc = pytest.importorskip("tritonclient.grpc", reason=ELSEWHERE)

X = np.array([[1, 2, 3]], dtype="float32")


@pytest.fixture(scope="module")
def addresses(models_folder):
    with running_both(load_repository(models_folder, threads=1)) as (url, address):
        yield {http: url.removeprefix("http://"), grpc: address}


@pytest.fixture(params=[http, grpc], ids=["http", "grpc"])
def triton(request):
    return request.param


@pytest.fixture
def client(triton, addresses):
    client = triton.InferenceServerClient(addresses[triton])
    yield client
    client.close()


def tensor(triton, name, array, datatype="FP32", **kwargs):
    tensor = triton.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array, **kwargs)
    return tensor


def test_health_metadata_config_statistics_and_index(client, triton):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("double", "10")
    assert not client.is_model_ready("nope")
    metadata = client.get_model_metadata("double")
    config = client.get_model_config("double")
    statistics = client.get_inference_statistics("double", "10")
    if triton is http:
        assert metadata["inputs"][0]["shape"] == [-1, 3]
        assert config["max_batch_size"] == 64
        assert statistics["model_stats"][0]["version"] == "10"
        assert "double" in {model["name"] for model in client.get_model_repository_index()}
    else:
        assert list(metadata.inputs[0].shape) == [-1, 3]
        assert config.config.max_batch_size == 64
        assert statistics.model_stats[0].version == "10"
        assert "double" in {model.name for model in client.get_model_repository_index().models}


def test_infer_with_ids_outputs_and_compression(client, triton):
    pair = [tensor(triton, "x", X[:, :2]), tensor(triton, "bias", X[:, :1])]
    wanted = [triton.InferRequestedOutput("minus_x")]
    result = client.infer("add_bias", pair, outputs=wanted, request_id="7", timeout=10**7)
    assert result.as_numpy("minus_x").tolist() == [[-1, -2]]
    assert result.as_numpy("y") is None
    packed = {
        http: {"request_compression_algorithm": "deflate"},
        grpc: {"compression_algorithm": "gzip"},
    }
    result = client.infer("double", [tensor(triton, "x", X)], **packed[triton])
    assert result.as_numpy("y").tolist() == [[2, 4, 6]]


def test_http_tensors_in_json_and_binary(addresses):
    with http.InferenceServerClient(addresses[http]) as client:
        for binary_in in (True, False):
            for binary_out in (True, False):
                result = client.infer(
                    "double",
                    [tensor(http, "x", X, binary_data=binary_in)],
                    outputs=[http.InferRequestedOutput("y", binary_data=binary_out)],
                )
                assert result.as_numpy("y").tolist() == [[2, 4, 6]]


def test_ragged_inputs_and_outputs(client, triton):
    splits = np.array([0, 3, 4], dtype="int64")
    inputs = [
        tensor(triton, "tokens", np.array([1, 2, 3, 9], dtype="int32"), "INT32"),
        tensor(triton, "tokens.row_splits", splits, "INT64"),
        tensor(triton, "parents", np.array([-1, 0, 0, -1], dtype="int32"), "INT32"),
        tensor(triton, "parents.row_splits", splits, "INT64"),
    ]
    result = client.infer("tree", inputs)
    assert result.as_numpy("y").tolist() == [0, 2, 3, 8]
    assert result.as_numpy("y.row_splits").tolist() == [0, 3, 4]


def test_errors_carry_the_servers_message(client, triton):
    with pytest.raises(Exception, match="entries along axis 1"):
        client.infer("double", [tensor(triton, "x", X[:, :2])])
    with pytest.raises(Exception, match="'nope' is unknown"):
        client.infer("nope", [tensor(triton, "x", X)])


def test_models_are_unloaded_and_loaded(client, triton):
    client.unload_model("log")
    assert not client.is_model_ready("log")
    client.load_model("log")
    assert client.is_model_ready("log")


def test_asynchronous_calls(client, triton):
    if triton is http:
        asked = [client.async_infer("double", [tensor(http, "x", X)]) for _ in range(8)]
        results = [one.get_result() for one in asked]
    else:
        done = queue.Queue()
        for _ in range(8):
            client.async_infer(
                "double", [tensor(grpc, "x", X)], lambda result, error: done.put((result, error))
            )
        results = [done.get(timeout=20)[0] for _ in range(8)]
    assert [result.as_numpy("y").tolist() for result in results] == [[[2, 4, 6]]] * 8


def test_a_stream_of_requests(addresses):
    done = queue.Queue()
    with grpc.InferenceServerClient(addresses[grpc]) as client:
        client.start_stream(lambda result, error: done.put((result, error)))
        for index in range(10):
            client.async_stream_infer(
                "double", [tensor(grpc, "x", X * index)], request_id=str(index)
            )
        answers = [done.get(timeout=20) for _ in range(10)]
        client.stop_stream()
    assert [result.as_numpy("y")[0, 0] for result, _ in answers] == [2 * i for i in range(10)]


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_the_asyncio_twins(addresses, kind):
    triton = {"http": http, "grpc": grpc}[kind]
    twin = pytest.importorskip(f"tritonclient.{kind}.aio")

    async def ask():
        async with twin.InferenceServerClient(addresses[triton]) as client:
            assert await client.is_server_ready()
            requests = (client.infer("double", [tensor(triton, "x", X * i)]) for i in range(20))
            return [result.as_numpy("y")[0, 0] for result in await asyncio.gather(*requests)]

    assert asyncio.run(ask()) == [2 * i for i in range(20)]
