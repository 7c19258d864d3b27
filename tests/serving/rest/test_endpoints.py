import gzip
import itertools
import json
import random
import zlib
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_blocks.serving import Limits, load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.protocol.example_requests import example_request

from ..conftest import running_both

BODY_LIMIT = 200_000  # as in conftest.py


def tensor(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def x(shape, data, datatype="FP32"):
    return {"inputs": [tensor("x", datatype, shape, data)]}


def ragged(values, splits, name="x"):
    return [
        tensor(name, "INT32", [len(values)], values),
        tensor(f"{name}.row_splits", "INT64", [len(splits)], splits),
    ]


def rows(values, splits):
    return {"inputs": ragged(values, splits)}


def trees(parents, splits, tokens=None, token_splits=None):
    tokens = [1] * len(parents) if tokens is None else tokens
    return {
        "inputs": ragged(tokens, token_splits or splits, "tokens")
        + ragged(parents, splits, "parents")
    }


def infer(client, model, body, **kwargs):
    return client.post(f"/v2/models/{model}/infer", json=body, **kwargs)


def outputs(response):
    assert response.status_code == 200, response.text
    return {o["name"]: o["data"] for o in response.json()["outputs"]}


# What the endpoints answer


def test_the_server_is_live_and_ready_and_says_what_it_is(client):
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get("/v2").json()["name"] == "keras-blocks"


def test_metadata_of_a_ragged_model_lists_values_and_row_splits(client):
    metadata = client.get("/v2/models/row_sums").json()
    assert metadata["name"] == "row_sums"
    assert metadata["versions"] == ["1"]
    values, splits = metadata["inputs"]
    assert (values["name"], values["datatype"], values["shape"]) == ("x", "INT32", [-1])
    assert values["parameters"] == {
        "dims": ["x.values"],
        "ragged": "values",
        "minimum": 0,
        "maximum": 9,
    }
    assert (splits["name"], splits["datatype"], splits["shape"]) == ("x.row_splits", "INT64", [-1])
    assert metadata["outputs"][0]["shape"] == [-1]


def test_metadata_of_a_tree_says_how_its_inputs_belong_together(client):
    inputs = {t["name"]: t["parameters"] for t in client.get("/v2/models/parse").json()["inputs"]}
    ragged = {"ragged": "values"}
    assert inputs["words"] == {"dims": ["words.values"], "leaves_of": "parents", **ragged}
    assert inputs["parents"] == {
        "dims": ["parents.values"],
        "tree_of": "parents",
        "max_children": 2,
        "forest": True,
        **ragged,
    }
    assert inputs["slots"] == {
        "dims": ["slots.values"],
        "edges_of": "parents",
        "edge_labels": 2,
        "siblings_differ": True,
        **ragged,
    }


def test_the_highest_version_answers_where_none_is_asked_for(client):
    # As text "2" would come after "10". Version 2 has two inputs, 1 and 10 have one.
    assert client.get("/v2/models/double").json()["versions"] == ["1", "2", "10"]
    body = x([1, 3], [1, 2, 3])
    assert infer(client, "double", body).json()["model_version"] == "10"
    assert infer(client, "double/versions/1", body).json()["model_version"] == "1"
    assert infer(client, "double/versions/2", body).status_code == 400
    assert client.get("/v2/models/double/versions/2/ready").json() == {
        "name": "double",
        "ready": True,
    }


def test_a_request_is_answered_with_its_id_and_shape(client):
    response = infer(client, "double", {"id": "a7", **x([2, 3], [1, 2, 3, 4, 5, 6.5])})
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "model_name": "double",
        "model_version": "10",
        "id": "a7",
        "outputs": [tensor("y", "FP32", [2, 3], [2.0, 4.0, 6.0, 8.0, 10.0, 13.0])],
    }


def test_nested_data_mean_the_same_as_flat_data(client):
    nested = outputs(infer(client, "double", x([2, 3], [[1, 2, 3], [4, 5, 6]])))
    assert nested == outputs(infer(client, "double", x([2, 3], [1, 2, 3, 4, 5, 6])))


def test_an_empty_batch_is_answered(client):
    assert outputs(infer(client, "double", x([0, 3], []))) == {"y": []}
    assert outputs(infer(client, "row_sums", rows([], [0]))) == {"y": []}


def test_ragged_rows_are_summed_each_for_itself(client):
    assert outputs(infer(client, "row_sums", rows([1, 2, 3, 9], [0, 2, 2, 4]))) == {"y": [3, 0, 12]}


def test_trees_come_in_and_go_out_ragged_empty_ones_too(client):
    body = trees([-1, 0, 1, 1, 2, 3, -1], [0, 3, 3, 7])
    assert outputs(infer(client, "tree", body)) == {
        "y": [0, 1, 2, 2, 3, 4, 0],
        "y.row_splits": [0, 3, 3, 7],
    }


def test_only_the_asked_outputs_come_in_the_asked_order(client):
    body = {
        "inputs": [
            tensor("x", "FP32", [1, 2], [1, 2]),
            tensor("bias", "FP32", [1, 1], [10]),
        ]
    }
    assert list(outputs(infer(client, "add_bias", body))) == ["y", "minus_x"]
    body["outputs"] = [{"name": "minus_x"}, {"name": "y"}]
    assert outputs(infer(client, "add_bias", body)) == {"minus_x": [-1, -2], "y": [11, 12]}
    body["outputs"] = [{"name": "minus_x"}]
    assert outputs(infer(client, "add_bias", body)) == {"minus_x": [-1, -2]}


def test_outputs_that_json_has_no_number_for_are_named(client):
    assert outputs(infer(client, "log", x([4], [-1, 0, 1, 2]))) == {
        "y": ["NaN", "-Infinity", 0.0, 0.6931472]  # the shortest text of the float32
    }


# What is refused. Every body names, by its model, what is wrong with it and what must be named.

BAD_BODIES = {
    "not an object": ("double", [1], "object"),
    "no inputs": ("double", {}, "inputs"),
    "inputs that are an object": ("double", {"inputs": {"x": 1}}, "inputs"),
    "an input that is a number": ("double", {"inputs": [7]}, "input 0"),
    "an input without a name": ("double", {"inputs": [{"shape": [1, 3]}]}, "input 0"),
    "a name that is a number": ("double", {"inputs": [tensor(1, "FP32", [1], [1])]}, "input 0"),
    "a missing input": ("add_bias", x([1, 2], [1, 2]), "'bias'"),
    "an unknown input": (
        "double",
        {"inputs": [*x([1, 3], [1, 2, 3])["inputs"], tensor("z", "FP32", [1], [1])]},
        "'z'",
    ),
    "an input given twice": ("double", {"inputs": 2 * x([1, 3], [1, 2, 3])["inputs"]}, "'x'"),
    "another datatype": ("double", x([1, 3], [1, 2, 3], "INT32"), "'x'"),
    "no such datatype": ("double", x([1, 3], [1, 2, 3], "FLOAT"), "'x'"),
    "a datatype that is a list": ("double", x([1, 3], [1, 2, 3], ["FP32"]), "'x'"),
    "no data": ("double", {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3]}]}, "'x'"),
    "data that are a string": ("double", x([1, 3], "123"), "'x'"),
    "data that are an object": ("double", x([1, 3], {"0": 1}), "'x'"),
    "no shape": ("double", {"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, "'x'"),
    "a shape that is a number": ("double", x(3, [1, 2, 3]), "'x'"),
    "a fraction in the shape": ("double", x([1.0, 3], [1, 2, 3]), "'x'"),
    "a boolean in the shape": ("double", x([True, 3], [1, 2, 3]), "'x'"),
    "a negative dim": ("double", x([-1, 3], [1, 2, 3]), "'x'"),
    "two negative dims": ("double", x([-1, -3], [1, 2, 3]), "'x'"),
    "a rank too low": ("double", x([3], [1, 2, 3]), "'x'"),
    "a rank too high": ("double", x([1, 1, 3], [1, 2, 3]), "'x'"),
    "a wrong fixed dim": ("double", x([1, 4], [1, 2, 3, 4]), "'x'"),
    "too few data": ("double", x([2, 3], [1, 2, 3]), "'x'"),
    "too many data": ("double", x([1, 3], [1, 2, 3, 4]), "'x'"),
    "a shape beyond all memory": ("double", x([1_000_000_000_000, 3], [1]), "'x'"),
    "a dim beyond 64 bits": ("double", x([10**30, 3], [1]), "'x'"),
    "no elements, but a huge dim": ("column_sums", x([0, 10**12], []), "'x': shape"),
    "no elements, but the hugest dim": ("column_sums", x([0, 2**63], []), "'x': shape"),
    "nested rows of other lengths": ("double", x([2, 3], [[1, 2, 3], [4, 5]]), "'x'"),
    "nested one level too few": ("double", x([2, 3], [[1, 2, 3], 4]), "'x'"),
    "nested one level too many": ("double", x([1, 3], [[[1], [2], [3]]]), "'x'"),
    "numbers before lists": ("double", x([2, 3], [1, [2, 3, 4]]), "'x'"),
    "booleans for numbers": ("double", x([1, 3], [1, True, 3]), "'x'"),
    "strings for numbers": ("double", x([1, 3], [1, "2", 3]), "'x'"),
    "null for a number": ("double", x([1, 3], [1, None, 3]), "'x'"),
    "an object for a number": ("double", x([1, 3], [1, {}, 3]), "'x'"),
    "a number beyond float32": ("double", x([1, 3], [1, 1e39, 3]), "'x'"),
    "a fraction for an integer": ("row_sums", rows([1, 2.0], [0, 2]), "'x'"),
    "a boolean for an integer": ("row_sums", rows([1, True], [0, 2]), "'x'"),
    "an integer beyond int32": ("row_sums", rows([1, 2**31], [0, 2]), "'x'"),
    "an integer beyond 64 bits": ("row_sums", rows([1, 2**70], [0, 2]), "'x'"),
    "an id below the minimum": ("row_sums", rows([1, -1], [0, 2]), "'x'"),
    "an id above the maximum": ("row_sums", rows([1, 10], [0, 2]), "'x'"),
    "named dims that disagree": (
        "add_bias",
        {
            "inputs": [
                tensor("x", "FP32", [2, 2], [1, 2, 3, 4]),
                tensor("bias", "FP32", [3, 1], [1, 2, 3]),
            ]
        },
        "'bias'",
    ),
    "no row splits at all": ("row_sums", rows([], []), "'x.row_splits'"),
    "row splits that do not start at 0": ("row_sums", rows([1, 2], [1, 2]), "'x.row_splits'"),
    "row splits that fall": ("row_sums", rows([1, 2], [0, 2, 1, 2]), "'x.row_splits'"),
    "row splits that end too early": ("row_sums", rows([1, 2], [0, 1]), "'x.row_splits'"),
    "row splits that end too late": ("row_sums", rows([1, 2], [0, 3]), "'x.row_splits'"),
    "row splits below zero": ("row_sums", rows([1, 2], [0, -5, 2]), "'x.row_splits'"),
    "row splits whose differences overflow": (
        "row_sums",
        rows([1, 2], [0, 2**63 - 1, -(2**63), -1, 2]),
        "'x.row_splits'",
    ),
    "row splits near 2**63": ("row_sums", rows([1], [0, 2**63 - 1]), "'x.row_splits'"),
    "one long row among many empty ones": (
        "row_sums",
        rows([1] * 40, [0] + [40] * 40),
        "'x'",
    ),
    "a tree with two roots": ("tree", trees([-1, -1], [0, 2]), "'parents': tree 0"),
    "a tree without a root": ("tree", trees([-1, 1, 0], [0, 1, 3]), "'parents': tree 1"),
    "a node that is its own parent": ("tree", trees([-1, 1], [0, 2]), "node 1 of tree 0"),
    "a cycle of two beside the root": ("tree", trees([-1, -1, 2, 1], [0, 1, 4]), "tree 1"),
    "a cycle of three": ("tree", trees([-1, 2, 3, 1], [0, 4]), "'parents': node 1 of tree 0"),
    "a parent below -1": ("tree", trees([-1, -2], [0, 2]), "'parents': node 1 of tree 0"),
    "a parent in the next tree": ("tree", trees([-1, 2, -1, 0], [0, 2, 4]), "node 1 of tree 0"),
    "trees of other sizes than their features": (
        "tree",
        trees([-1, 0, -1], [0, 2, 3], token_splits=[0, 1, 3]),
        "'parents.row_splits': tree 0",
    ),
    "an unknown output": (
        "double",
        {**x([1, 3], [1, 2, 3]), "outputs": [{"name": "z"}]},
        "output 'z'",
    ),
    "an output asked for twice": (
        "double",
        {**x([1, 3], [1, 2, 3]), "outputs": [{"name": "y"}] * 2},
        "output 'y'",
    ),
    "an output without a name": ("double", {**x([1, 3], [1, 2, 3]), "outputs": [1]}, "output 0"),
    "an id that is a number": ("double", {**x([1, 3], [1, 2, 3]), "id": 7}, "'id'"),
    "parameters that are a list": ("double", {**x([1, 3], [1, 2, 3]), "parameters": []}, "param"),
}


@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_bad_body_gets_400_and_an_error_that_names_what_is_wrong(client, case):
    model, body, named = BAD_BODIES[case]
    response = infer(client, model, body)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    assert list(error) == ["error"]
    assert named in error["error"]
    assert len(error["error"]) < 500


RAW_BODIES = {
    "nothing": b"",
    "half a body": b'{"inputs": [',
    "not UTF-8": b'{"inputs": "\xff\xfe"}',
    "half a surrogate pair": b'{"id": "\\ud800"}',
    "lists of a million levels": b"[" * 100_000,
    "objects of many levels": b'{"a":' * 20_000,
    "1e999": b'{"inputs": [{"name":"x","datatype":"FP32","shape":[1,3],"data":[1e999,1,2]}]}',
    "a NUL byte": b"\x00",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "two bodies": b"{}{}",
}


@pytest.mark.parametrize("case", RAW_BODIES)
def test_a_body_that_is_no_json_gets_400(client, case):
    response = client.post("/v2/models/double/infer", content=RAW_BODIES[case])
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]


def test_deep_nesting_within_json_limits_gets_400(client):
    data = 1
    for _ in range(900):
        data = [data]
    response = infer(client, "double", x([1, 3], [data, 1, 2]))
    assert response.status_code == 400
    assert "'x'" in response.json()["error"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_mutation_of_a_good_request_gives_a_5xx(client, repository, data):
    model = data.draw(st.sampled_from(["double", "add_bias", "row_sums", "tree", "log"]))
    body = example_request(repository.get(model).contract)
    item = data.draw(st.sampled_from(body["inputs"]))
    key = data.draw(st.sampled_from(["name", "datatype", "shape", "data", "parameters"]))
    item[key] = data.draw(JSON | st.lists(st.integers(-2, 2**33), max_size=4))
    response = client.post(f"/v2/models/{model}/infer", content=json.dumps(body).encode())
    assert response.status_code in (200, 400), (body, response.text)
    if response.status_code == 400:
        assert response.json()["error"]


def test_an_unknown_model_version_or_path_gets_404_in_json(client):
    for path in (
        "/v2/models/nope",
        "/v2/models/nope/ready",
        "/v2/models/double/versions/3",
        "/v2/models/double/versions/01",
        "/v2/models/double/versions/x",
        "/v2/models/..%2f..%2fetc",
        "/v1/models/double",
    ):
        response = client.get(path)
        assert response.status_code == 404, path
        assert response.json()["error"]
    assert infer(client, "nope", {}).status_code == 404
    assert "'double'" in infer(client, "nope", {}).json()["error"]


def test_a_method_that_a_path_lacks_gets_405_in_json(client):
    for method, path in (("POST", "/v2"), ("GET", "/v2/models/double/infer"), ("PUT", "/v2")):
        response = client.request(method, path)
        assert response.status_code == 405
        assert method in response.json()["error"]
        assert "allow" in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/octet-stream"},
        {"content-type": "text/plain"},
        {"content-encoding": "br"},
    ],
    ids=str,
)
def test_a_body_of_another_kind_gets_415(client, headers):
    response = client.post("/v2/models/double/infer", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert "not read" in response.json()["error"]


def test_curl_without_a_content_type_is_understood(client):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps(x([1, 3], [1, 2, 3]))
    response = client.post("/v2/models/double/infer", content=body, headers=headers)
    assert outputs(response) == {"y": [2, 4, 6]}


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body_is_read_up_to_the_limit_of_what_it_holds(client, encoding, pack):
    headers = {"content-encoding": encoding}

    def post(body):
        return client.post("/v2/models/double/infer", content=body, headers=headers)

    body = json.dumps(x([1, 3], [1, 2, 3])).encode()
    assert outputs(post(pack(body))) == {"y": [2, 4, 6]}
    assert post(pack(body.ljust(BODY_LIMIT + 1))).status_code == 413
    assert post(pack(b" " * 100 * BODY_LIMIT)).status_code == 413
    assert post(pack(body)[:-9]).status_code == 400
    assert post(body).status_code == 400


# What only onnxruntime can refuse


def test_an_index_that_only_onnxruntime_knows_to_be_outside_gets_400_without_its_innards(client):
    response = infer(client, "gather", x([2], [1, 7], "INT64"))
    assert response.status_code == 400
    message = response.json()["error"]
    assert "Gather" in message
    assert "idx=7" in message
    assert "ONNXRuntimeError" not in message
    assert "/onnxruntime" not in message


def test_a_request_for_more_memory_than_there_is_gets_413_and_the_server_goes_on(client):
    body = {"inputs": [tensor("shape", "INT64", [2], [10**9, 10**6])]}
    assert infer(client, "expand", body).status_code == 413
    assert outputs(infer(client, "double", x([1, 3], [1, 2, 3]))) == {"y": [2, 4, 6]}


def test_an_answer_over_the_limit_gets_400_by_both_protocols(models_folder):
    body = {"inputs": [{"name": "shape", "datatype": "INT64", "shape": [1], "data": [1000]}]}
    limits = Limits(answer_bytes=3999)
    with running_both(load_repository(models_folder, threads=1), limits=limits) as (url, address):
        answer = httpx.post(f"{url}/v2/models/expand/infer", json=body)
        assert (answer.status_code, "4000 bytes, at most 3999" in answer.text) == (400, True)
        body["inputs"][0]["data"] = [999]
        assert httpx.post(f"{url}/v2/models/expand/infer", json=body).status_code == 200
        request = message_class("ModelInferRequest")(model_name="expand")
        shape = request.inputs.add(name="shape", datatype="INT64", shape=[1])
        shape.contents.int64_contents.append(1000)
        with grpc.insecure_channel(address) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            with pytest.raises(grpc.RpcError) as raised:
                ask(request.SerializeToString(), timeout=20)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_more_rows_than_steps_are_allowed_are_refused_before_they_are_read(client):
    body = {"inputs": [{"name": "x", "datatype": "INT32", "data": [[1]] * 1000 + ["no row"]}]}
    answer = client.post("/v2/models/row_sums/infer", json=body)
    assert (answer.status_code, "1001 rows came, at most 1000" in answer.text) == (400, True)


def test_a_fault_of_the_server_gets_500_without_a_traceback(client, monkeypatch, caplog):
    monkeypatch.setattr("keras_blocks.serving.inference.service.check_limits", lambda *_: 1 / 0)
    response = infer(client, "double", x([1, 3], [1, 2, 3]))
    assert response.status_code == 500
    assert response.json() == {"error": "internal error"}
    assert "ZeroDivisionError" in caplog.text  # but the log has it


# Many at once


def test_200_mixed_requests_at_once_each_get_their_own_answer(client):
    generator = random.Random(3)

    def one(index):
        lengths = [generator.randrange(5) for _ in range(1 + index % 4)]
        splits = np.cumsum([0, *lengths]).tolist()
        values = [generator.randrange(10) for _ in range(sum(lengths))]
        kind = index % 3
        if kind == 0:
            sums = [sum(values[a:b]) for a, b in itertools.pairwise(splits)]
            return "row_sums", rows(values, splits), 200, {"y": sums}
        if kind == 1:
            data = [index, index + 0.5, -index]
            return "double", x([1, 3], data), 200, {"y": [2 * value for value in data]}
        return "double", x([1, 3], [index]), 400, None

    jobs = [one(index) for index in range(200)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda job: infer(client, job[0], {**job[1], "id": str(id(job))}), jobs)
        )
    for job, answer in zip(jobs, answers, strict=True):
        _, _, status, expected = job
        assert answer.status_code == status
        if expected is not None:
            assert answer.json()["id"] == str(id(job))
            assert outputs(answer) == expected
