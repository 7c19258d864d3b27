"""The server as users start it: another process, a real socket, a real signal."""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import grpc
import httpx
import onnx_files
import pytest

from keras_blocks.serving import serve
from keras_blocks.serving.grpc.messages import message_class

COMMAND = [sys.executable, "-m", "keras_blocks.cli", "serve"]
START_SECONDS = 60  # the machine may be busy with other tests
CONNECTIONS = 2000
SLOW_SECONDS = 4.0  # many times what the test needs: a machine that was busy gets faster


@contextlib.contextmanager
def server(folder, *options, until="    -d '"):
    """A started server and the lines that it printed on its way; `until` is in the last of them."""
    process = subprocess.Popen(
        [*COMMAND, str(folder), "--port", "0", "--threads", "1", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.start()
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if until in line or (line.startswith("curl ") and not line.endswith("\\\n")):
                break
        killer.cancel()
        yield process, lines
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def url_in(lines):
    return next(line.split()[2] for line in lines if line.startswith("Serving on "))


def outcome(*arguments):
    """The exit code and the output of a server that is expected to end by itself."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=START_SECONDS
    )
    return done.returncode, done.stdout + done.stderr


def infer(url, model, name, datatype, shape, data):
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    return httpx.post(f"{url}/v2/models/{model}/infer", json={"inputs": [tensor]}, timeout=60)


def test_it_starts_says_what_it_serves_answers_and_ends_with_0_on_sigterm(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    onnx_files.tree(tmp_path / "trees" / "7" / "model.onnx")
    broken = tmp_path / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("not ONNX")
    with server(tmp_path) as (process, lines):
        text = "\n".join(lines)
        assert "x FP32 [batch, 3]" in text
        assert "tokens.row_splits INT64 [batch+1]" in text
        assert f"not loaded: {broken}: Protobuf parsing failed." in text
        answer = infer(url_in(lines), "double", "x", "FP32", [1, 3], [1, 2, 3]).json()
        assert answer["outputs"][0]["data"] == [2, 4, 6]
        assert pasted(lines) == [0, 0, 0]
        assert not any(name in loaded(process.pid) for name in ("tensorflow", "keras/src"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        assert "Traceback" not in process.stdout.read()


def pasted(lines):
    """The answer to the curl command that the server shows, sent without curl."""
    start = next(i for i, line in enumerate(lines) if line.startswith("curl "))
    url = lines[start].split()[1]
    body = json.loads(lines[start + 1].strip().removeprefix("-d '").removesuffix("'"))
    return httpx.post(url, json=body).json()["outputs"][0]["data"]


def loaded(pid):
    """The libraries mapped into a process."""
    try:
        with open(f"/proc/{pid}/maps") as maps:
            return maps.read()
    except FileNotFoundError:
        pytest.skip("needs /proc")


def test_grpc_is_beside_http_and_finishes_what_is_in_flight_too(tmp_path):
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx")
    with server(tmp_path, "--grpc-port", "0") as (process, lines):
        address = next(line.split()[2] for line in lines if line.startswith("gRPC on "))
        steps = {"name": "steps", "datatype": "INT64", "shape": [1]}
        steps["contents"] = {"int64_contents": [2000]}
        request = message_class("ModelInferRequest")(model_name="slow", inputs=[steps])
        with grpc.insecure_channel(address) as channel:
            infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            future = infer.future(request.SerializeToString(), timeout=60)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert process.poll() is None
            response = message_class("ModelInferResponse").FromString(future.result())
        assert response.raw_output_contents[0] == (2000).to_bytes(8, "little")
        assert process.wait(START_SECONDS) == 0


def test_the_grpc_port_is_the_one_after_that_of_http_unless_it_is_given():
    with contextlib.ExitStack() as stack:
        taken = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = taken.getsockname()[1]
        code, text = outcome(".", "--port", str(port - 1))
    assert code == 1
    assert text == (
        f"Error: cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}; "
        "choose another --grpc-port\n"
    )


def test_two_thousand_connections_are_held_and_answered(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CONNECTIONS:
        pytest.skip(f"{hard} open files are allowed, {2 * CONNECTIONS} would be used")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CONNECTIONS), hard))
    try:
        with server(tmp_path) as (_, lines), contextlib.ExitStack() as stack:
            host, _, port = url_in(lines).removeprefix("http://").partition(":")
            clients = [
                stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
                for _ in range(CONNECTIONS)
            ]
            for client in clients:
                client.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
            assert all(client.recv(1000).startswith(b"HTTP/1.1 200") for client in clients)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_sigterm_lets_a_request_in_flight_finish_and_takes_no_new_one(tmp_path):
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx")
    with server(tmp_path) as (process, lines):
        url = url_in(lines)
        seconds = []
        for _ in range(5):  # the fastest, or a busy machine makes the run below a short one
            started = time.perf_counter()
            infer(url, "slow", "steps", "INT64", [1], [200])
            seconds.append(time.perf_counter() - started)
        steps = int(200 * SLOW_SECONDS / min(seconds))
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(infer(url, "slow", "steps", "INT64", [1], [steps]))
        )
        thread.start()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/v2/health/live", timeout=0.2)
        thread.join()
        assert answers[0].json()["outputs"][0]["data"] == [steps]
        assert process.wait(START_SECONDS) == 0


def test_a_long_run_does_not_hold_up_the_health_endpoints(tmp_path):
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx")
    with server(tmp_path) as (_, lines):
        url = url_in(lines)
        arguments = (url, "slow", "steps", "INT64", [1], [2000])
        thread = threading.Thread(target=infer, args=arguments)
        thread.start()
        time.sleep(0.1)
        assert httpx.get(f"{url}/v2/health/live", timeout=10).status_code == 200
        assert thread.is_alive(), "the slow request was not slow enough for this test"
        thread.join()


def test_small_answers_do_not_wait_for_acknowledgements(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    requests = 20
    with server(tmp_path) as (_, lines), httpx.Client(base_url=url_in(lines)) as client:
        client.get("/v2")
        started = time.perf_counter()
        for _ in range(requests):
            client.get("/v2")
        # With Nagle's algorithm on, each takes 40 ms.
        assert time.perf_counter() - started < requests * 0.03


def test_a_folder_that_cannot_be_served_is_one_line_and_exit_code_2(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:  # of two faults the first is told
        code, text = outcome(str(tmp_path / "nope"), "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert text == (
        f"Error: {tmp_path / 'nope'} does not exist; "
        f"a folder with <name>/<version>/model.onnx expected\n"
    )
    (tmp_path / "broken" / "1").mkdir(parents=True)
    code, text = outcome(str(tmp_path), "--port", "0")
    assert code == 2
    assert text.count("\n") == 1
    assert "no model in" in text


def test_a_taken_port_is_one_line_and_exit_code_1(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, text = outcome(str(tmp_path), "--port", str(port))
    assert code == 1
    assert text == (
        f"Error: cannot listen on 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}; "
        "choose another --port\n"
    )


def test_a_host_that_is_none_is_one_line(tmp_path):
    with pytest.raises(OSError, match=r"cannot listen on no\.such\.host\.invalid:8080"):
        serve(tmp_path, host="no.such.host.invalid")
