"""The lines of the log, and what they say of each request."""

import json
import logging
import signal

import grpc
import httpx
import onnx_files
import pytest

from keras_blocks.errors import KerasBlocksError
from keras_blocks.serving import Limits, Model, load_repository, serve
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.status import CANCELLED, DEADLINE_EXCEEDED
from keras_blocks.serving.telemetry.logs import JsonLines, TextLines, fields, log_request
from keras_blocks.serving.telemetry.request_record import GONE, Observer

from ..conftest import running_both
from ..process.test_server import START_SECONDS, server

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
BODY = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1] * 6}]}
BODY_LIMIT = 1000
SLOW_STEPS = 10_000  # many times what a client waits that leaves
LEAVES_SECONDS = 0.2
PATH = "/v2/models/double/infer"
Request = message_class("ModelInferRequest")


def record(message="it broke", error=None, **values):
    info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("keras_blocks.serving", logging.ERROR, "", 1, message, (), info)
    record.created, record.msecs = 1.5, 500
    vars(record).update(fields(**values))
    return record


def grpc_request(request_id="", rows=2):
    message = Request(model_name="double", id=request_id)
    message.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    message.inputs[0].contents.fp32_contents.extend([1] * 3 * rows)
    return message.SerializeToString()


def call(address, data, method="ModelInfer", metadata=(), timeout=30):
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(f"/{SERVICE}/{method}")(data, timeout=timeout, metadata=metadata)


@pytest.fixture
def watched(repository, caplog):
    """A server with an access log: its url, where gRPC is, and what each line says."""
    caplog.set_level(logging.INFO, "keras_blocks.serving")
    settings = {"observer": Observer([log_request]), "limits": Limits(body_bytes=BODY_LIMIT)}
    with (
        running_both(repository, **settings) as (url, address),
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield client, address, lambda: [r.fields for r in caplog.records]


def test_a_line_of_json_is_one_object_with_the_fields_and_the_traceback():
    error = ValueError("no\nsuch thing")
    line = JsonLines().format(record(error=error, request_id="a\nb", none=None))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500Z",
        "level": "error",
        "logger": "keras_blocks.serving",
        "message": "it broke",
        "request_id": "a\nb",
        "exception": "ValueError: no\nsuch thing",
    }


def test_a_line_of_text_cannot_be_forged_by_the_name_of_a_request():
    line = TextLines().format(record(request_id="a\nERROR forged=1 \x1b[31m", rows=2))
    assert line == (
        "1970-01-01T00:00:01.500Z ERROR keras_blocks.serving: it broke "
        'request_id="a\\nERROR forged=1 \\u001b[31m" rows=2'
    )


def test_an_infer_request_is_one_line_with_its_model_its_rows_and_its_times(watched):
    client, address, lines = watched
    assert client.post(PATH, json={**BODY, "id": "mine"}).status_code == 200
    call(address, grpc_request("theirs", rows=3))
    by_http, by_grpc = lines()
    assert by_http["call"] == f"POST {PATH}"
    assert by_grpc["call"] == f"/{SERVICE}/ModelInfer"
    for line, expected in (
        (by_http, {"request_id": "mine", "protocol": "http", "status": 200, "rows": 2}),
        (by_grpc, {"request_id": "theirs", "protocol": "grpc", "status": 0, "rows": 3}),
    ):
        assert expected.items() <= line.items()
        assert (line["model"], line["version"]) == ("double", "10")
        assert line["batch_rows"] == line["rows"]
        assert line["compute_ms"] > 0
        # Each is rounded to a microsecond.
        assert 0 <= line["queue_ms"] + line["compute_ms"] <= line["total_ms"] + 0.002


@pytest.mark.parametrize(
    ("headers", "own", "expected"),
    [
        ({"x-request-id": "sent", "traceparent": PARENT}, "own", "own"),
        ({"x-request-id": "sent", "traceparent": PARENT}, "", "sent"),
        ({"traceparent": PARENT}, "", TRACE),
        ({"traceparent": PARENT.replace(TRACE, "0" * 32)}, "", None),
        ({}, "", None),
    ],
    ids=["own", "header", "trace", "no trace", "made"],
)
def test_a_request_is_called_by_its_id_its_header_its_trace_or_a_made_name(
    watched, headers, own, expected
):
    client, address, lines = watched
    answer = client.post(PATH, json={**BODY, "id": own}, headers=headers)
    call(address, grpc_request(own), metadata=tuple(headers.items()))
    assert answer.headers.get("x-request-id") == headers.get("x-request-id")
    names = [line["request_id"] for line in lines()]
    if expected:
        assert names == [expected, expected]
    else:
        assert len(set(names)) == 2
        assert all(len(name) == 32 for name in names)


def test_what_is_refused_is_logged_too_and_probes_that_find_all_well_are_not(watched):
    client, address, lines = watched
    client.get("/v2/health/live")
    client.post("/v2/models/none/infer", json=BODY, headers={"x-request-id": "a"})
    client.post(PATH, json={"id": "b", "inputs": []})
    client.post(PATH, content=b" " * (BODY_LIMIT + 1))
    with pytest.raises(grpc.RpcError):
        call(address, Request(model_name="none").SerializeToString())
    with pytest.raises(grpc.RpcError):
        call(address, b"", "Nothing")
    call(address, b"", "ServerLive")
    shown = [(line["call"].rpartition("/")[2], line["status"]) for line in lines()]
    assert shown == [
        ("infer", 404),
        ("infer", 400),
        ("infer", 413),
        ("ModelInfer", 5),
        ("Nothing", 12),
    ]
    assert lines()[0]["request_id"] == "a"
    assert not any("compute_ms" in line for line in lines())


def test_each_message_of_a_stream_is_a_line(watched):
    _, address, lines = watched
    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        messages = [grpc_request("a"), Request(model_name="none", id="b").SerializeToString()]
        assert len(list(stream(iter(messages), timeout=30))) == 2
    assert sorted((line["request_id"], line["status"]) for line in lines()) == [("a", 0), ("b", 5)]


def test_a_client_that_leaves_before_its_answer_is_logged_by_either_protocol(tmp_path, caplog):
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx")
    caplog.set_level(logging.INFO, "keras_blocks.serving")
    steps = {"name": "steps", "datatype": "INT64", "shape": [1]}
    message = Request(model_name="slow", inputs=[steps])
    message.inputs[0].contents.int64_contents.append(SLOW_STEPS)
    body = {"inputs": [{**steps, "data": [SLOW_STEPS]}]}
    with running_both(load_repository(tmp_path), observer=Observer([log_request])) as (
        url,
        address,
    ):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v2/models/slow/infer", json=body, timeout=LEAVES_SECONDS)
        with pytest.raises(grpc.RpcError):
            call(address, message.SerializeToString(), timeout=LEAVES_SECONDS)
    # A client of gRPC tells the server its own limit, so that the server may be the first to end.
    by_http, by_grpc = (record.fields["status"] for record in caplog.records)
    assert by_http == GONE
    assert by_grpc in (CANCELLED, DEADLINE_EXCEEDED)


def test_a_failure_of_the_server_names_the_request_without_an_access_log(
    repository, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("a bug")

    with running_both(repository) as (url, address):
        monkeypatch.setattr(Model, "run", fail)
        answer = httpx.post(url + PATH, json={**BODY, "id": "mine"}, headers={"x-request-id": "n"})
        with pytest.raises(grpc.RpcError):
            call(address, grpc_request("theirs"))
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "n")
    assert [r.fields for r in caplog.records] == [{"request_id": "mine"}, {"request_id": "theirs"}]


def test_a_format_that_is_none_says_which_there_are(tmp_path):
    with pytest.raises(KerasBlocksError, match="log_format is 'xml', expected one of text, json"):
        serve(tmp_path, log_format="xml")


def test_with_json_every_line_of_a_server_with_workers_is_an_object(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    (tmp_path / "broken" / "1").mkdir(parents=True)
    (tmp_path / "broken" / "1" / "model.onnx").write_text("not ONNX")
    command = ["--log-format", "json", "--access-log", "--workers", "2", "--watch-seconds", "0"]
    with server(tmp_path, *command, until='"serving"') as (process, lines):
        url = json.loads(lines[-1])["url"]
        httpx.post(url + PATH, json={**BODY, "id": "mine"}, timeout=30).raise_for_status()
        process.send_signal(signal.SIGTERM)
        lines += process.stdout.read().splitlines()
        assert process.wait(START_SECONDS) == 0
    read = [json.loads(line) for line in lines]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in read)
    assert any(line["message"].startswith("not loaded: ") for line in read)
    (request,) = [line for line in read if line["message"] == "request"]
    assert request["logger"] == "keras_blocks.serving.access"
    assert (request["request_id"], request["model"], request["rows"]) == ("mine", "double", 2)
