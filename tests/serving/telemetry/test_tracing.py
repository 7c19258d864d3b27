"""Traces as OpenTelemetry's own exporters and a collector see them."""

import contextlib
import http.server
import signal
import subprocess
import sys
import threading
import time

import grpc
import httpx
import onnx_files
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from keras_blocks.errors import KerasBlocksError, MissingExtraError
from keras_blocks.serving import Model
from keras_blocks.serving.telemetry.logs import log_request
from keras_blocks.serving.telemetry.request_record import Observer
from keras_blocks.serving.telemetry.tracing import open_traces, tracing_wanted

from ..conftest import running_both
from ..process.test_server import START_SECONDS, server, url_in
from .test_logs import BODY, PARENT, PATH, TRACE, call, grpc_request

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
END_SECONDS = 20  # two for the traces, the rest for a busy machine; far below the time set for OTLP
SPAN = int(PARENT.split("-")[2], 16)


@contextlib.contextmanager
def traced(repository, *others):
    """A server whose spans are kept: its url, where gRPC is, and the spans once it has ended."""
    exporter, spans = InMemorySpanExporter(), []
    record, close = open_traces(exporter)
    with running_both(repository, observer=Observer([record, *others], close)) as (url, address):
        yield url, address, spans
    spans += exporter.get_finished_spans()


@contextlib.contextmanager
def collector():
    """Where traces may be sent: its url, and the resources with their spans that came."""
    came = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            came.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}", came
        finally:
            listener.shutdown()
            thread.join()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_is_a_span_below_the_clients_with_its_wait_and_its_run_below_it(
    repository, protocol
):
    begun = time.time_ns()
    with traced(repository) as (url, address, spans):
        if protocol == "http":
            answer = httpx.post(
                url + PATH, json={**BODY, "id": "a"}, headers={"traceparent": PARENT}
            )
            assert answer.status_code == 200
        else:
            call(address, grpc_request("a"), metadata=(("traceparent", PARENT),))
    ended = time.time_ns()
    by_name = {span.name: span for span in spans}
    assert sorted(span.name for span in spans) == ["compute", "infer", "queue"]
    infer, queue, compute = by_name["infer"], by_name["queue"], by_name["compute"]
    assert infer.kind is SpanKind.SERVER
    assert (infer.context.trace_id, infer.parent.span_id) == (int(TRACE, 16), SPAN)
    assert dict(infer.attributes) == {
        "model": "double",
        "version": "10",
        "request.id": "a",
        "protocol": protocol,
        "status": 200 if protocol == "http" else 0,
        "rows": 2,
        "batch.rows": 2,
    }
    assert infer.status.status_code is StatusCode.UNSET
    for part in (queue, compute):
        assert part.parent.span_id == infer.context.span_id
        assert part.context.trace_id == infer.context.trace_id
    moments = [begun, infer.start_time, queue.start_time, queue.end_time, compute.start_time]
    moments += [compute.end_time, infer.end_time, ended]
    assert moments == sorted(moments)
    assert queue.end_time == compute.start_time < compute.end_time


def test_only_infer_requests_are_traced_and_only_the_servers_own_faults_are_errors(
    repository, monkeypatch
):
    def fail(*_):
        raise RuntimeError("a bug")

    with traced(repository) as (url, address, spans):
        httpx.get(f"{url}/v2/health/live")
        httpx.post(f"{url}/v2/models/none/infer", json=BODY)
        with pytest.raises(grpc.RpcError):
            call(address, grpc_request(rows=0)[:-2])
        monkeypatch.setattr(Model, "run", fail)
        httpx.post(url + PATH, json=BODY)
        with pytest.raises(grpc.RpcError):
            call(address, grpc_request())
    shown = [(s.attributes["status"], s.status.status_code) for s in spans if s.name == "infer"]
    assert shown == [(404, StatusCode.UNSET), (500, StatusCode.ERROR), (13, StatusCode.ERROR)]


def test_what_the_client_does_not_sample_is_not_sent(repository):
    with traced(repository) as (url, _, spans):
        httpx.post(url + PATH, json=BODY, headers={"traceparent": PARENT[:-1] + "0"})
    assert spans == []


def test_the_access_log_names_the_trace(repository, caplog):
    caplog.set_level("INFO", "keras_blocks.serving")
    with traced(repository, log_request) as (url, _, spans):
        httpx.post(url + PATH, json=BODY)
    (line,) = [record.fields for record in caplog.records if record.message == "request"]
    assert line["trace_id"] == f"{spans[0].context.trace_id:032x}"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_sends_its_spans_to_a_collector(tmp_path, monkeypatch, workers):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with collector() as (endpoint, came):
        monkeypatch.setenv(ENDPOINT, endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "trees")
        with server(tmp_path, "--workers", workers) as (process, lines):
            answer = httpx.post(url_in(lines) + PATH, json={**BODY, "id": "mine"}, timeout=30)
            assert answer.status_code == 200
            process.send_signal(signal.SIGTERM)  # what is still kept is sent at the end
            assert process.wait(START_SECONDS) == 0
    (resource,) = came
    about = {item.key: item.value for item in resource.resource.attributes}
    assert about["service.name"].string_value == "trees"
    assert (about["process.pid"].int_value == process.pid) == (workers == "1")
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name for span in spans) == ["compute", "infer", "queue"]
    infer = next(span for span in spans if span.name == "infer")
    assert {a.key: a.value.string_value for a in infer.attributes}["request.id"] == "mine"


def test_a_collector_that_is_not_there_holds_up_neither_answers_nor_the_end(tmp_path, monkeypatch):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "120")
    with server(tmp_path, "--exit-timeout-secs", "5") as (process, lines):
        answer = httpx.post(url_in(lines) + PATH, json=BODY, timeout=30)
        assert answer.status_code == 200
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        assert time.monotonic() - began < END_SECONDS


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
    ids=["off", "empty", "on", "traces only", "disabled"],
)
def test_the_standard_variables_turn_it_on(monkeypatch, variables, wanted):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert tracing_wanted() is wanted


def test_another_protocol_is_refused(monkeypatch):
    monkeypatch.setenv(ENDPOINT, "http://collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(KerasBlocksError, match="is 'grpc', expected 'http/protobuf'"):
        tracing_wanted()


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("opentelemetry.sdk.trace", "opentelemetry-sdk"),
        (
            "opentelemetry.exporter.otlp.proto.http.trace_exporter",
            "opentelemetry-exporter-otlp-proto-http",
        ),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, module, package):
    monkeypatch.setenv(ENDPOINT, "http://collector:4318")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=package) as caught:
        tracing_wanted()
    assert str(caught.value).endswith("pip install 'keras-blocks[tracing]'")
    assert str(caught.value).startswith(f"Tracing, which {ENDPOINT} asks for, needs the package")


def test_a_server_without_traces_loads_nothing_of_opentelemetry():
    code = (
        "import sys, keras_blocks.serving.process.server as server\n"
        "assert not server.tracing_wanted()\n"
        "print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
