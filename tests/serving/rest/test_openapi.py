"""The OpenAPI document: valid, whole, and true of what the server does."""

import copy
import shlex
import sys
import types

import httpx
import numpy as np
import onnx_files
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto

from keras_blocks.contract.dtypes import from_bfloat16
from keras_blocks.contract.example import example_inputs
from keras_blocks.serving import Model, load_repository
from keras_blocks.serving.auth import ApiKeys
from keras_blocks.serving.rest.endpoints import route
from keras_blocks.serving.rest.openapi import openapi_document
from keras_blocks.serving.rest.snippets import curl_call, grpc_call, python_call

from ..conftest import running

MODELS = ["double", "add_bias", "row_sums", "tree", "parse", "log"]
ENDPOINTS = {
    *("server", "live", "ready", "document", "metrics", "stats", "index"),
    *("model", "models", "model_ready", "config", "infer", "load", "unload"),
}


@pytest.fixture(scope="module")
def document(client):
    return client.get("/v2/openapi.json").json()


def resolved(document, part):
    """A part of the document with its references replaced by what they mean."""
    if isinstance(part, list):
        return [resolved(document, item) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        found = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        return resolved(document, found)
    return {key: resolved(document, value) for key, value in part.items()}


def operations(document):
    for path, item in document["paths"].items():
        for method in {"get", "post"} & set(item):
            yield path, method, resolved(document, item[method])


def schemas_of(operation):
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        for content in part.get("content", {}).values():
            yield content.get("schema", {})


def infer_operation(document, model):
    return resolved(document, document["paths"][f"/v2/models/{model}/infer"]["post"])


def request_schema(document, model):
    operation = infer_operation(document, model)
    return operation["requestBody"]["content"]["application/json"]["schema"]


def test_every_path_is_routed_by_its_methods_and_every_endpoint_is_there(document):
    reached = set()
    for path, item in document["paths"].items():
        methods, _ = route(path.format(model="double", version="1").encode())
        assert sorted(name.lower() for name in methods) == sorted({"get", "post"} & set(item)), path
        reached |= set(methods.values())
    assert reached == ENDPOINTS


def test_every_reference_leads_somewhere_and_every_schema_is_one(document):
    assert document["openapi"].startswith("3.1.")
    for path, method, operation in operations(document):
        assert operation["summary"], (path, method)
        for schema in schemas_of(operation):
            Draft202012Validator.check_schema(schema)
        for status in ("400", "405", "413"):
            error = operation["responses"][status]["content"]["application/json"]["schema"]
            assert error["required"] == ["error"]


def test_an_infer_path_stands_for_each_model_and_each_version(document):
    paths = document["paths"]
    assert "/v2/models/double/infer" in paths
    assert {f"/v2/models/double/versions/{v}/infer" for v in (1, 2, 10)} <= set(paths)
    refusals = set(infer_operation(document, "double")["responses"])
    assert {"400", "404", "405", "413", "415", "429", "503"} <= refusals


@pytest.mark.parametrize("model", MODELS)
def test_its_examples_work_and_they_and_their_answers_keep_to_the_schemas(document, client, model):
    operation = infer_operation(document, model)
    body = operation["requestBody"]["content"]["application/json"]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(body["examples"]) == {"flat", "lists"}
    for name, example in body["examples"].items():
        asked = {**example["value"], "parameters": {"nested": name == "lists"}}
        Draft202012Validator(body["schema"]).validate(asked)
        response = client.post(f"/v2/models/{model}/infer", json=asked)
        assert response.status_code == 200, response.text
        Draft202012Validator(answer).validate(response.json())


def put(key, value, index=0):
    def change(body):
        body["inputs"][index][key] = value

    return change


WRONG = {
    "another datatype": ("double", put("datatype", "INT32")),
    "another fixed dim": ("double", put("shape", [1, 4])),
    "a rank too low": ("double", put("shape", [3])),
    "text for numbers": ("double", put("data", ["1", "2", "3"])),
    "a number beyond float32": ("double", put("data", [1e39, 0, 0])),
    "an id above the greatest": ("row_sums", put("data", [0, 0, 0, 0, 10])),
    "a fraction for an integer": ("row_sums", put("data", [0, 0, 0, 0, 1.5])),
    "row splits below zero": ("row_sums", put("data", [-1, 3, 5], 1)),
    "a missing input": ("tree", lambda body: body["inputs"].pop()),
    "an input of another name": ("tree", put("name", "other")),
    "an unknown output": ("tree", lambda body: body.update(outputs=[{"name": "z"}])),
    "an id that is a number": ("tree", lambda body: body.update(id=7)),
    "no inputs": ("tree", lambda body: body.pop("inputs")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_schema_forbids_the_server_refuses(document, client, case):
    model, change = WRONG[case]
    operation = infer_operation(document, model)
    body = operation["requestBody"]["content"]["application/json"]
    asked = copy.deepcopy(body["examples"]["flat"]["value"])
    change(asked)
    assert not Draft202012Validator(body["schema"]).is_valid(asked)
    assert client.post(f"/v2/models/{model}/infer", json=asked).status_code == 400


def test_what_is_read_keeps_to_its_schema(document, client):
    for path, method, operation in operations(document):
        if method == "get" and path != "/metrics":
            response = client.get(path.format(model="double", version="2"))
            content = operation["responses"][str(response.status_code)]["content"]
            schema = content[response.headers["content-type"]]["schema"]
            Draft202012Validator(schema).validate(response.json())
    index = client.post("/v2/repository/index", json={"ready": True})
    answer = resolved(document, document["paths"]["/v2/repository/index"]["post"])["responses"]
    schema = answer["200"]["content"]["application/json"]["schema"]
    Draft202012Validator(schema).validate(index.json())


def test_an_index_of_something_else_than_a_flag_is_refused(client):
    response = client.post("/v2/repository/index", json={"ready": 1})
    assert response.status_code == 400
    assert "'ready'" in response.json()["error"]


def test_with_keys_it_says_so_and_which_paths_need_none(repository):
    document = openapi_document(repository, keyed=True)
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert document["security"] == [{"key": []}]
    with running(repository, keys=ApiKeys(["secret"])) as url:
        for path, method, operation in operations(document):
            response = httpx.request(method, url + path.format(model="double", version="1"))
            open_to_all = operation.get("security") == []
            assert (response.status_code == 401) != open_to_all, path
            assert ("401" in operation["responses"]) != open_to_all, path


def test_an_example_that_would_be_most_of_the_document_is_left_out(tmp_path):
    onnx_files.identity(
        tmp_path / "wide" / "1" / "model.onnx", TensorProto.FLOAT, ("batch", 100, 100)
    )
    document = openapi_document(load_repository(tmp_path), keyed=False)
    operation = document["paths"]["/v2/models/wide/infer"]["post"]
    assert "examples" not in operation["requestBody"]["content"]["application/json"]
    assert [sample["label"] for sample in operation["x-codeSamples"]] == ["Python", "gRPC"]
    assert len(str(operation)) < 10_000


# The calls to copy


@pytest.mark.parametrize("model", MODELS)
def test_the_curl_call_sends_what_it_says(repository, client, model):
    call = curl_call(repository.get(model), "URL").replace("\\\n", "")  # a line goes on
    command, address, _, header, _, body = shlex.split(call)
    assert command == "curl"
    kind = dict([header.split(": ")])
    response = client.post(address.removeprefix("URL"), content=body, headers=kind)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("version", [None, 1])
@pytest.mark.parametrize("model", MODELS)
def test_the_python_call_runs_and_prints_the_answer(repository, client, capsys, model, version):
    served = repository.get(model, version)
    exec(python_call(served, str(client.base_url), version), {})
    shown = capsys.readouterr().out
    assert all(repr(name) in shown for name in served.output_names)


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.BOOL])
def test_the_grpc_call_sends_the_example_in_every_dtype(tmp_path, monkeypatch, kind):
    model = Model.load(onnx_files.identity(tmp_path / "m.onnx", kind, ("batch", 20)))
    sent = grpc_arrays(model, monkeypatch)
    given = example_inputs(model.contract)["x"]
    assert sent["x"].shape == given.shape
    if kind == TensorProto.BFLOAT16:  # ours are the bits, the client's have a type of their own
        assert sent["x"].dtype.name == "bfloat16"
        given = from_bfloat16(given)
    np.testing.assert_array_equal(sent["x"].astype(given.dtype), given)


@pytest.mark.parametrize("model", MODELS)
def test_the_grpc_call_sends_the_example(repository, monkeypatch, model):
    model = repository.get(model)
    sent = grpc_arrays(model, monkeypatch)
    for name, array in example_inputs(model.contract).items():
        np.testing.assert_array_equal(sent[name], array)
        assert sent[name].dtype == array.dtype


def grpc_arrays(model, monkeypatch):
    """What the call hands to tritonclient, which is in an environment of its own."""
    sent = {}

    class InferInput:
        def __init__(self, name, shape, datatype):
            self.name, self.shape = name, tuple(shape)

        def set_data_from_numpy(self, array):
            assert array.shape == self.shape
            sent[self.name] = array
            return self

    class InferenceServerClient:
        def __init__(self, address):
            assert address == "localhost:8081"

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def infer(self, name, inputs):
            assert name == model.name
            assert len(inputs) == len(sent)
            return types.SimpleNamespace(as_numpy=lambda name: None)

    fake = types.ModuleType("tritonclient.grpc")
    fake.InferInput, fake.InferenceServerClient = InferInput, InferenceServerClient
    package = types.ModuleType("tritonclient")
    package.grpc = fake
    monkeypatch.setitem(sys.modules, "tritonclient", package)
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", fake)
    exec(grpc_call(model), {})
    return sent
