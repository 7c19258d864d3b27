"""Requests that could be meant in two ways, or mean something to other servers: none is guessed."""

import socket

import grpc
import httpx
import numpy as np
import onnx_files
import pytest

from keras_blocks.serving import load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.repository.repository import load_model

from .conftest import running_both

Request = message_class("ModelInferRequest")
MEANT_ELSEWHERE = {
    "sequence_id": 7,
    "sequence_start": True,
    "priority": 1,
    "classification": 3,
    "shared_memory_region": "r",
    "triton_enable_empty_final_response": True,
    "content_type": "base64",
}
WITHOUT_EFFECT = {
    "sequence_id": 0,
    "sequence_end": False,
    "priority": 0,
    "content_type": "np",
    "unheard_of": "x",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    onnx_files.double(folder / "double" / "1" / "model.onnx")
    onnx_files.add_bias(folder / "add_bias" / "1" / "model.onnx")
    with running_both(load_repository(folder, threads=1)) as (url, address):
        yield url, address


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served[0]) as client:
        yield client


@pytest.fixture(scope="module")
def channel(served):
    with grpc.insecure_channel(served[1]) as channel:
        yield channel


def double(**more):
    x = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    return {"inputs": [{**x, **more.pop("x", {})}], **more}


def asked(client, body):
    response = client.post("/v2/models/double/infer", json=body)
    return response.status_code, response.json().get("error", "")


def called(channel, message, method="ModelInfer"):
    """The code and the message of a call."""
    try:
        channel.unary_unary(f"/{SERVICE}/{method}")(message.SerializeToString(), timeout=30)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def message(**more):
    made = Request(model_name="double", **more)
    made.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    return made


def set_parameter(parameters, name, value):
    kind = {bool: "bool_param", int: "int64_param", str: "string_param"}[type(value)]
    setattr(parameters[name], kind, value)


# The data twice


def test_raw_and_typed_contents_in_one_call_are_refused(channel):
    both = message(raw_input_contents=[np.float32([1, 2, 3]).tobytes()])
    assert called(channel, both)[0] == grpc.StatusCode.OK
    both.inputs[0].contents.fp32_contents.extend([4, 5, 6])
    code, details = called(channel, both)
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "'x': both contents and raw_input_contents came" in details


def test_raw_contents_of_one_input_beside_typed_ones_of_another_are_refused(channel):
    mixed = Request(model_name="add_bias", raw_input_contents=[bytes(8), b""])
    mixed.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    mixed.inputs.add(name="bias", datatype="FP32", shape=[1, 1])
    mixed.inputs[1].contents.fp32_contents.append(1)
    assert called(channel, mixed)[0] == grpc.StatusCode.INVALID_ARGUMENT


def test_a_header_that_comes_twice_is_not_read_as_one_of_both(served):
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'
    host, port = served[0].removeprefix("http://").split(":")
    length = b"Inference-Header-Content-Length: %d\r\n"
    head = b"POST /v2/models/double/infer HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
    head += b"Content-Length: %d\r\n" % len(body)
    statuses = []
    for twice in (length % len(body), length % len(body) + length % 2):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(head + twice + b"\r\n" + body)
            statuses.append(sock.makefile("rb").read().split()[1])
    assert statuses == [b"200", b"400"]


# What means something elsewhere


@pytest.mark.parametrize("name", MEANT_ELSEWHERE)
@pytest.mark.parametrize("place", ["request", "input", "output"])
def test_a_parameter_that_other_servers_act_upon_is_refused_by_name(client, channel, name, place):
    value = {name: MEANT_ELSEWHERE[name]}
    body = {
        "request": double(parameters=value),
        "input": double(x={"parameters": value}),
        "output": double(outputs=[{"name": "y", "parameters": value}]),
    }[place]
    status, error = asked(client, body)
    assert (status, name in error) == (400, True), error
    call = message(raw_input_contents=[bytes(12)])
    holder = {"request": call, "input": call.inputs[0]}.get(place) or call.outputs.add(name="y")
    set_parameter(holder.parameters, *next(iter(value.items())))
    code, details = called(channel, call)
    assert (code, name in details) == (grpc.StatusCode.INVALID_ARGUMENT, True), details


def test_parameters_that_ask_for_nothing_are_passed_over(client, channel):
    assert asked(client, double(parameters=WITHOUT_EFFECT)) == (200, "")
    call = message(raw_input_contents=[bytes(12)])
    for name, value in WITHOUT_EFFECT.items():
        set_parameter(call.parameters, name, value)
    assert called(channel, call)[0] == grpc.StatusCode.OK


@pytest.mark.parametrize("value", [{"int64_param": -5}, {"string_param": "soon"}])
def test_a_timeout_that_is_none_is_refused_by_grpc_too(channel, value):
    call = message(raw_input_contents=[bytes(12)])
    for kind, number in value.items():
        setattr(call.parameters["timeout"], kind, number)
    code, details = called(channel, call)
    assert (code, "timeout" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("outputs", [{}, "", 0, {"name": "y"}])
def test_outputs_that_are_no_list_are_refused(client, outputs):
    assert asked(client, double(outputs=outputs))[0] == 400


def test_changes_that_ask_for_more_than_a_change_are_refused(client, channel):
    path = "/v2/repository/models/double/"
    assert client.post(f"{path}unload", json={"parameters": {"force": True}}).status_code == 400
    for method in ("RepositoryModelLoad", "RepositoryModelUnload", "RepositoryIndex"):
        request = message_class(f"{method}Request")(repository_name="other")
        code, details = called(channel, request, method)
        assert (code, "repository_name" in details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


@pytest.mark.parametrize("name", ["config.pbtxt", "model-settings.json"])
def test_settings_of_other_servers_are_told_not_to_be_read(name, tmp_path, caplog):
    onnx_files.double(tmp_path / "m" / "1" / "model.onnx")
    load_repository(tmp_path)
    assert not caplog.messages
    (tmp_path / "m" / name).write_text("max_batch_size: 0")
    for load in (lambda: load_repository(tmp_path), lambda: load_model(tmp_path / "m")):
        caplog.clear()
        load()
        (told,) = caplog.messages
        assert f"{name} is not read" in told
        assert "model.toml" in told
