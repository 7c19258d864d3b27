"""Valid requests, damaged: none gives a 5xx, takes the server's memory or gets another's answer."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_blocks.contract.example import example_inputs
from keras_blocks.serving import Client, Limits
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.protocol.example_requests import example_request
from keras_blocks.serving.protocol.tensor_data import to_bytes

from ..conftest import running_both

BODY_LIMIT = 200_000
# What one refused request may leave behind: its body, read, and some pages of the allocator.
MEMORY_BYTES = 64 * 2**20
FUZZED = ["double", "add_bias", "row_sums", "tree", "parse", "log"]
REFUSALS = {400, 404, 405, 408, 411, 413, 415, 431, 501, 505}
Code = grpc.StatusCode
NO_FAULT = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED}
SEEDED = {"deadline": None, "derandomize": True}


@pytest.fixture(scope="module")
def addresses(repository):
    with running_both(repository, limits=Limits(body_bytes=BODY_LIMIT, padded_steps=1000)) as both:
        yield both


@pytest.fixture(scope="module")
def http(addresses):
    with httpx.Client(base_url=addresses[0], timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def infer(addresses):
    with grpc.insecure_channel(addresses[1]) as channel:
        yield channel.unary_unary(f"/{SERVICE}/ModelInfer").future


@pytest.fixture(autouse=True)
def _another_client_gets_its_own_answer_and_memory_stays(addresses):
    before = resident_bytes()
    yield
    with Client(addresses[0]) as client:
        x = np.float32([[1, 2, 3]])
        assert client.infer("double", {"x": x}, version=1)["y"].tolist() == [[2, 4, 6]]
    assert resident_bytes() - before < MEMORY_BYTES


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def binary_body(contract):
    """A valid infer request with all tensors behind the JSON, and the length of that."""
    inputs, raw = [], b""
    for item in example_request(contract)["inputs"]:
        part = b"".join([to_bytes(example_inputs(contract)[item["name"]])])
        del item["data"]
        inputs.append({**item, "parameters": {"binary_data_size": len(part)}})
        raw += part
    head = json.dumps({"inputs": inputs}).encode()
    return head + raw, len(head)


def grpc_body(name, contract):
    message = message_class("ModelInferRequest")(model_name=name)
    arrays = example_inputs(contract)
    for item in example_request(contract)["inputs"]:
        message.inputs.add(name=item["name"], datatype=item["datatype"], shape=item["shape"])
        message.raw_input_contents.append(b"".join([to_bytes(arrays[item["name"]])]))
    return message.SerializeToString()


@st.composite
def damage(draw):
    """A function that changes some bytes, cuts or adds some."""
    changes = draw(
        st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=9)), max_size=4)
    )
    cut = draw(st.just(0) | st.integers(1, 40))
    more = draw(st.just(b"") | st.binary(max_size=40))

    def damaged(body):
        body = bytearray(body)
        for place, new in changes:
            start = int(place * len(body))
            body[start : start + len(new)] = new
        return bytes(body[: len(body) - cut]) + more

    return damaged


def check_rest(response):
    assert response.status_code in REFUSALS | {200}, (response.status_code, response.text)
    if response.status_code != 200:
        assert response.json()["error"]


@settings(max_examples=300, **SEEDED)
@given(name=st.sampled_from(FUZZED), damaged=damage(), shift=st.just(0) | st.integers(-5, 5))
def test_a_damaged_binary_request_is_answered_or_refused(http, repository, name, damaged, shift):
    body, length = binary_body(repository.get(name).contract)
    headers = {"inference-header-content-length": str(length + shift)}
    check_rest(http.post(f"/v2/models/{name}/infer", content=damaged(body), headers=headers))


@settings(max_examples=300, **SEEDED)
@given(name=st.sampled_from(FUZZED), damaged=damage())
def test_a_damaged_json_request_is_answered_or_refused(http, repository, name, damaged):
    body = json.dumps(example_request(repository.get(name).contract)).encode()
    check_rest(http.post(f"/v2/models/{name}/infer", content=damaged(body)))


@settings(max_examples=300, **SEEDED)
@given(name=st.sampled_from(FUZZED), damaged=damage())
def test_a_damaged_grpc_request_is_answered_or_refused(infer, repository, name, damaged):
    call = infer(damaged(grpc_body(name, repository.get(name).contract)))
    assert call.code() in NO_FAULT, call.details()


def x(shape, data="[]", datatype="FP32"):
    """A body with the input `x`; its data as text, for what Python would not write."""
    tensor = json.dumps({"name": "x", "datatype": datatype, "shape": shape})
    return f'{{"inputs": [{tensor[:-1]}, "data": {data}}}]}}'


def tree(parents):
    return json.dumps(
        {
            "inputs": [
                {"name": "tokens", "datatype": "INT32", "data": [[1] * len(parents)]},
                {"name": "parents", "datatype": "INT32", "data": [parents]},
            ]
        }
    )


HOSTILE = {
    "lists in lists without end": ("double", '{"inputs":' + "[" * 50_000),
    "objects in objects without end": ("double", '{"a":' * 20_000),
    "nested data": ("double", x([1, 3], "[" * 3000 + "]" * 3000)),
    "many dims": ("double", x([1] * 1000, "[1]")),
    "a shape of terabytes": ("double", x([10**12, 3], "[1, 2, 3]")),
    "a shape that wraps around": ("double", x([2**62, 3])),
    "a shape of huge numbers": ("double", x([10**400, 3])),
    "no rows of terabytes": ("column_sums", x([0, 10**12])),
    "an infinite number": ("double", x([1, 3], "[1e999, 1, 2]")),
    "a huge integer": ("double", x([1, 3], f"[{10**400}, 1, 2]")),
    "a lone surrogate": ("double", '{"inputs":[{"name":"\\ud800","datatype":"FP32"}]}'),
    "bytes that are no UTF-8": ("double", b'{"inputs":[{"name":"\xff"}]}'),
    "a key given twice": ("double", '{"inputs":[], "inputs":[{"name":"x"}]}'),
    "another dtype": ("double", x([1, 3], "[1, 2, 3]", "INT64")),
    "a cycle": ("tree", tree([-1, 2, 1])),
    "a parent of its own": ("tree", tree([-1, 1])),
    "a parent outside": ("tree", tree([-1, 2**31 - 1])),
    "a body over the limit": ("double", " " * (BODY_LIMIT + 1)),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_body_is_refused(http, case):
    name, body = HOSTILE[case]
    version = "/versions/1" if name == "double" else ""
    content = body if isinstance(body, bytes) else body.encode()
    response = http.post(f"/v2/models/{name}{version}/infer", content=content)
    assert response.status_code in (400, 413), response.text
    assert response.json()["error"]


@pytest.mark.parametrize(
    "splits", [[0, 2**62, 3], [1, 3], [0, -1, 3], [0, 2**63 - 1], [0, 4], [3], []]
)
def test_row_splits_that_cut_elsewhere_are_refused_by_both_protocols(http, infer, splits):
    values = {"name": "x", "datatype": "INT32", "shape": [3]}
    ends = {"name": "x.row_splits", "datatype": "INT64", "shape": [len(splits)]}
    raw = [struct.pack("<3i", 1, 2, 3), struct.pack(f"<{len(splits)}q", *splits)]
    sized = [
        {**item, "parameters": {"binary_data_size": len(part)}}
        for item, part in zip((values, ends), raw, strict=True)
    ]
    head = json.dumps({"inputs": sized}).encode()
    headers = {"inference-header-content-length": str(len(head))}
    response = http.post("/v2/models/row_sums/infer", content=head + b"".join(raw), headers=headers)
    assert response.status_code == 400
    assert "x.row_splits" in response.json()["error"]
    message = message_class("ModelInferRequest")(
        model_name="row_sums", inputs=[values, ends], raw_input_contents=raw
    )
    call = infer(message.SerializeToString())
    assert (call.code(), "x.row_splits" in call.details()) == (Code.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("shape", [[2**62, 3], [2**62, 2**62], [-1, 3], [0, 2**62]])
def test_a_huge_or_negative_shape_over_grpc_is_refused(infer, shape):
    message = message_class("ModelInferRequest")(model_name="log")
    message.inputs.add(name="x", datatype="FP32", shape=shape)
    message.raw_input_contents.append(b"")
    assert infer(message.SerializeToString()).code() is Code.INVALID_ARGUMENT


@pytest.mark.slow
def test_schemathesis_finds_nothing_by_the_servers_own_document(addresses, tmp_path):
    checks = "not_a_server_error,status_code_conformance,content_type_conformance"
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{addresses[0]}/v2/openapi.json"]
    command += ["--checks", f"{checks},response_schema_conformance", "--max-examples", "40"]
    # Loading and unloading would change what the other tests ask.
    command += ["--exclude-path-regex", "/(load|unload)$", "--seed", "1", "--no-color"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
