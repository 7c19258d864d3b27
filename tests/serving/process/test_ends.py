"""How a server ends: under load, with runs that take too long, and when told twice."""

import asyncio
import collections
import contextlib
import json
import signal
import socket
import threading
import time

import grpc
import httpx
import onnx_files
import pytest

from keras_blocks.serving import load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.inference.service import Service

from .test_lifecycle import until
from .test_server import START_SECONDS, infer, server, url_in

CLIENTS = 8
FOREVER = 10**9  # steps: hours
EXIT_SECONDS = 0.5
BUSY_SECONDS = 8.0  # how much later a busy machine may be; a client may be silent for 20
UNREAD_ROWS = 500_000  # their answer is larger than what the sockets' buffers hold


def test_under_load_every_request_that_was_sent_is_answered_before_the_end(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path) as (process, lines):
        url, wrong, answered = url_in(lines), [], []
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}

        def ask():
            with httpx.Client(base_url=url, timeout=30) as client:
                while True:
                    try:
                        answer = client.post("/v2/models/double/infer", json={"inputs": [tensor]})
                    except httpx.ConnectError:
                        return
                    except httpx.TransportError as error:
                        return wrong.append(error)
                    answered.append(answer.json()["outputs"][0]["data"])

        threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while len(answered) <= CLIENTS and not wrong:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(answered) > CLIENTS
    assert all(data == [2, 4, 6] for data in answered)


def post(rows, connection="close"):
    """The bytes of an infer request."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 3], "data": [1, 2, 3] * rows}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/double/infer HTTP/1.1\r\nconnection: {connection}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def connect(url):
    host, _, port = url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=START_SECONDS)


@pytest.mark.parametrize("workers", [1, 2])
def test_who_connects_at_the_end_is_answered_or_refused_but_not_cut_off(tmp_path, workers):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    outcomes = collections.Counter()
    request = post(rows=1)
    with server(tmp_path, "--workers", str(workers)) as (process, lines):

        def ask():
            outcome = "answered"
            while outcome == "answered":
                try:
                    client = connect(url_in(lines))
                except ConnectionRefusedError:
                    outcome = "refused"
                else:
                    outcome = answer_of(client)
                outcomes[outcome] += 1

        def answer_of(client):
            with client, client.makefile("rb") as answer:
                try:
                    client.sendall(request)
                    return "answered" if b"[2.0,4.0,6.0]" in answer.read() else "wrong"
                except OSError as error:
                    return repr(error)

        threads = [threading.Thread(target=ask) for _ in range(2 * CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        for thread in threads:
            thread.join()
    assert outcomes.pop("answered") > CLIENTS
    assert outcomes == {"refused": 2 * CLIENTS}


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_that_stop_in_the_middle_do_not_hold_up_the_end(tmp_path, workers):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    whole = post(UNREAD_ROWS, "keep-alive")
    options = ("--workers", str(workers), "--exit-timeout-secs", str(EXIT_SECONDS))
    with server(tmp_path, *options) as (process, lines), contextlib.ExitStack() as stack:
        in_head, in_body, unread = (stack.enter_context(connect(url_in(lines))) for _ in range(3))
        in_head.sendall(whole[:20])
        in_body.sendall(whole[: len(whole) // 2])
        unread.sendall(whole)
        unread.recv(1)
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        assert EXIT_SECONDS <= time.monotonic() - begun < EXIT_SECONDS + BUSY_SECONDS
        assert "were cut off after 0.5 seconds" in process.stdout.read()


def test_who_has_just_connected_may_still_ask(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path) as (process, lines), connect(url_in(lines)) as client:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        client.sendall(post(rows=1, connection="keep-alive"))
        with client.makefile("rb") as answer:
            assert b"connection: close" in (text := answer.read())
            assert b"[2.0,4.0,6.0]" in text
        assert process.wait(START_SECONDS) == 0


def endless_request(url):
    def ask():
        with contextlib.suppress(httpx.TransportError):
            infer(url, "slow", "steps", "INT64", [1], [FOREVER])

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    return thread


def test_a_run_without_end_is_cut_off_after_the_exit_timeout(tmp_path):
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx")
    with server(tmp_path, "--exit-timeout-secs", str(EXIT_SECONDS)) as (process, lines):
        thread = endless_request(url_in(lines))
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        thread.join()
        assert "cut off after 0.5 seconds" in process.stdout.read()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_load_without_end_does_not_hold_up_the_end(tmp_path, workers):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    options = ("--workers", str(workers), "--watch-seconds", "0.1")
    with server(tmp_path, *options) as (process, lines):
        url = url_in(lines)
        onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx", more=FOREVER)
        with httpx.Client(base_url=url) as client:
            until_now = time.monotonic() + START_SECONDS
            while client.get("/v2/health/ready").status_code == 200:
                assert time.monotonic() < until_now
        time.sleep(0.5)  # it is read, and warms up
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0


def test_a_second_sigterm_ends_it_at_once(tmp_path):
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx")
    with server(tmp_path) as (process, lines):
        thread = endless_request(url_in(lines))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == -signal.SIGTERM
        thread.join()


def test_a_stream_of_calls_that_is_idle_does_not_hold_up_the_end(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    ending = threading.Event()

    def requests():
        request = message_class("ModelInferRequest")(model_name="double")
        request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
        request.raw_input_contents.append(bytes(12))
        yield request.SerializeToString()
        ending.wait(START_SECONDS)

    with server(tmp_path, "--grpc-port", "0") as (process, lines):
        address = next(line.split()[-1] for line in lines if line.startswith("gRPC on "))
        with grpc.insecure_channel(address) as channel:
            answers = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(requests())
            assert b"double" in next(answers)
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as raised:
                next(answers)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
            assert process.wait(START_SECONDS) == 0
            assert time.monotonic() - begun < BUSY_SECONDS
            ending.set()


def test_a_broken_model_whose_folder_is_gone_is_asked_for_no_more(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    broken = tmp_path / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("not ONNX")

    async def story():
        service = Service(load_repository(tmp_path, threads=1))
        await service.open()
        watching = asyncio.create_task(service.watch(0.02))
        assert not service.ready
        broken.unlink()
        broken.parent.rmdir()
        broken.parent.parent.rmdir()
        await until(lambda: service.ready)
        watching.cancel()
        await service.close()

    asyncio.run(story())
