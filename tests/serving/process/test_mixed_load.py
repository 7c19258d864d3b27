"""Thousands of requests at once, of every kind, by every protocol, each with its own answer."""

import json
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import onnx_files
import pytest
from onnx import TensorProto

from keras_blocks.contract.dtypes import PROTOCOL, from_bfloat16
from keras_blocks.contract.feeds import flat_inputs
from keras_blocks.serving import BatchSettings, Client, Model, load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.protocol.tensor_data import to_bytes

from ..conftest import running_both

MODELS = ("double", "row_sums", "tree", "steps", "center", "BF16", "BYTES")
REQUESTS, MANY_REQUESTS = 4000, 20_000
THREADS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in MODELS[:5]:
        getattr(onnx_files, name)(folder / name / "1" / "model.onnx")
    kinds = {"BF16": TensorProto.BFLOAT16, "BYTES": TensorProto.STRING}
    for name, kind in kinds.items():
        onnx_files.identity(folder / name / "1" / "model.onnx", kind, ["batch", "time"])
    return folder


@pytest.fixture(scope="module")
def server(folder):
    settings = BatchSettings(max_queue_size=2 * THREADS, runs_at_once=2)
    with running_both(load_repository(folder, threads=1), settings=settings) as addresses:
        yield addresses


def rows_of(generator, draw, least=0):
    """Rows of unequal length, as a ragged input takes them."""
    lengths = [generator.randrange(least, 6) for _ in range(generator.randrange(1, 4))]
    return [[draw(i) for i in range(length)] for length in lengths]


def inputs_for(name, generator):
    rows, steps = generator.randrange(1, 4), generator.randrange(1, 8)
    match name:
        case "row_sums":
            return {"x": rows_of(generator, lambda _: generator.randrange(10))}
        case "tree":
            parents = rows_of(generator, lambda i: generator.randrange(i) if i else -1, least=1)
            tokens = [[generator.randrange(10) for _ in row] for row in parents]
            return {"tokens": tokens, "parents": parents}
        case "steps":
            return {"x": [[[generator.randrange(-2, 3), 1]] * steps] * rows}
        case "BYTES":
            return {"x": [[generator.choice(["", "é", "word"]) for _ in range(steps)]] * rows}
        case "BF16":
            return {"x": [[generator.randrange(256) for _ in range(steps)]] * rows}
    return {"x": [[generator.randrange(1000) for _ in range(3)] for _ in range(rows)]}


class Asker:
    """Asks one model by one protocol or another, as a client of it would."""

    def __init__(self, folder, server):
        url, address = server
        self.models = {n: Model.load(folder / n / "1" / "model.onnx", threads=1) for n in MODELS}
        self._client = Client(url, retries=30)
        self._http = httpx.Client(base_url=url, timeout=60)
        self._channel = grpc.insecure_channel(address)
        self._infer = self._channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class("ModelInferResponse").FromString,
        )

    def close(self):
        self._client.close()
        self._http.close()
        self._channel.close()

    def binary(self, name, inputs):
        return self._client.infer(name, inputs)

    def json(self, name, inputs):
        flat = self._flat(name, inputs)
        tensors = [
            {
                "name": n,
                "datatype": datatype,
                "shape": list(array.shape),
                "data": self._data(array, datatype),
            }
            for n, array, datatype in flat
        ]
        while True:
            answer = self._http.post(
                f"/v2/models/{name}/infer", content=json.dumps({"inputs": tensors})
            )
            if answer.status_code != 429:
                break
        assert answer.status_code == 200, answer.text
        return {
            out["name"]: np.array(out["data"]).reshape(out["shape"])
            for out in answer.json()["outputs"]
        }

    def grpc(self, name, inputs):
        request = message_class("ModelInferRequest")(model_name=name)
        for n, array, datatype in self._flat(name, inputs):
            request.inputs.add(name=n, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(b"".join([to_bytes(array)]))
        while True:
            try:
                answer = self._infer(request, timeout=60)
                break
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
        dtypes = self.models[name].output_dtypes
        return {
            out.name: self._array(raw, dtypes[out.name]).reshape(out.shape)
            for out, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }

    def _flat(self, name, inputs):
        contract = self.models[name].contract
        arrays = flat_inputs(contract, inputs)
        return [(t.name, arrays[t.name], PROTOCOL[t.dtype]) for t in contract.flat_inputs()]

    @staticmethod
    def _data(array, datatype):
        flat = array.reshape(-1)
        return (from_bfloat16(flat) if datatype == "BF16" else flat).tolist()

    @staticmethod
    def _array(raw, dtype):
        if dtype == "bfloat16":
            return from_bfloat16(np.frombuffer(raw, "uint16"))
        if dtype != "string":
            return np.frombuffer(raw, dtype)
        items = []
        while raw:
            end = 4 + int.from_bytes(raw[:4], "little")
            items.append(raw[4:end].decode())
            raw = raw[end:]
        return np.array(items, dtype=object)


def run_mixed(folder, server, requests, seed):
    generator = random.Random(seed)
    asked = []
    for _ in range(requests):
        name = generator.choice(MODELS)
        asked.append(
            (name, generator.choice(["json", "binary", "grpc"]), inputs_for(name, generator))
        )
    asker, start = Asker(folder, server), threading.Barrier(THREADS)

    def ask_some(worker):
        start.wait()
        share = asked[worker::THREADS]
        return [(item, getattr(asker, item[1])(item[0], item[2])) for item in share]

    with ThreadPoolExecutor(THREADS) as pool:
        answered = [pair for part in pool.map(ask_some, range(THREADS)) for pair in part]
    asker.close()
    assert len(answered) == requests
    for (name, protocol, inputs), outputs in answered:
        alone = asker.models[name].predict(inputs)
        assert set(outputs) == set(alone), (name, protocol)
        for output, array in alone.items():
            assert outputs[output].shape == array.shape, (name, protocol, inputs)
            got = outputs[output].astype(array.dtype)  # JSON does not say how wide a float was
            np.testing.assert_array_equal(got, array, err_msg=f"{name} {protocol}")


def statistics_of(server):
    with httpx.Client(base_url=server[0]) as client:
        found = client.get("/v2/models/stats").json()["model_stats"]
    return {
        s["name"]: (s["inference_stats"]["success"]["count"], s["execution_count"]) for s in found
    }


def test_mixed_requests_over_json_binary_and_grpc_get_what_they_get_alone(folder, server):
    run_mixed(folder, server, REQUESTS, seed=1)
    shared = {name: count > runs for name, (count, runs) in statistics_of(server).items()}
    assert shared.pop("center") is False  # its rows see one another
    assert all(shared.values()), shared


@pytest.mark.slow
def test_many_more_mixed_requests_get_what_they_get_alone(folder, server):
    run_mixed(folder, server, MANY_REQUESTS, seed=2)
