"""Several processes on one address, as users start them."""

import asyncio
import logging
import os
import signal
import ssl
import sys
import threading
import time

import grpc
import httpx
import numpy as np
import onnx_files
import pytest

from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.process.ipc import RpcChannel
from keras_blocks.serving.process.supervisor import WorkerHandle

from ..telemetry.test_metrics import values
from .test_server import START_SECONDS, infer, outcome, server, url_in

LOAD_SECONDS = 3.0
CLIENTS = 8
CONNECTIONS = 16  # so many that no worker is likely to have them all


def workers_of(pid):
    """The process ids of a server's workers."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as children:
            return [int(child) for child in children.read().split()]
    except FileNotFoundError:
        pytest.skip("needs /proc")


def counted(url):
    name = 'keras_blocks_requests_total{model="double",version="1",outcome="success"}'
    return values(httpx.get(f"{url}/metrics").text)[name]


def test_a_killed_worker_takes_only_its_own_connections_along_and_comes_back(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path, "--workers", "2") as (process, lines):
        url, pids = url_in(lines), workers_of(process.pid)
        assert len(pids) == 2
        ends, answered, failed = time.monotonic() + LOAD_SECONDS, [], []

        def ask():
            body = {
                "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]
            }
            with httpx.Client(base_url=url, timeout=30) as client:
                while time.monotonic() < ends:
                    try:
                        answer = client.post("/v2/models/double/infer", json=body)
                    except httpx.TransportError:
                        failed.append(threading.get_ident())
                    else:
                        assert answer.json()["outputs"][0]["data"] == [2, 4, 6]
                        answered.append(threading.get_ident())

        threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        time.sleep(LOAD_SECONDS / 3)
        os.kill(pids[0], signal.SIGKILL)
        for thread in threads:
            thread.join()
        # One request a connection at most: what is sent anew is answered by the others.
        assert len(failed) == len(set(failed)) < CLIENTS
        assert len(set(answered)) == CLIENTS
        while len(workers_of(process.pid)) < 2:
            time.sleep(0.05)
        before = counted(url)
        assert 0 < before <= len(answered)
        infer(url, "double", "x", "FP32", [1, 3], [1, 2, 3])
        assert counted(url) == before + 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0


def test_what_is_loaded_or_unloaded_is_so_in_every_worker(tmp_path):
    for name in ("double", "other"):
        onnx_files.double(tmp_path / name / "1" / "model.onnx")
    with server(tmp_path, "--workers", "2", "--watch-seconds", "0") as (_, lines):
        url = url_in(lines)

        def statuses():
            return {httpx.get(f"{url}/v2/models/other/ready").status_code for _ in range(20)}

        change = f"{url}/v2/repository/models/other"
        assert statuses() == {200}
        assert httpx.post(f"{change}/unload").status_code == 200
        assert statuses() == {404}
        assert httpx.post(f"{change}/load").status_code == 200
        assert statuses() == {200}
        (tmp_path / "other" / "1" / "model.onnx").write_text("not ONNX")
        assert httpx.post(f"{change}/load").status_code == 400
        assert statuses() == {200}


def doubled(lines, credentials=None):
    """What a model answers by gRPC, on many connections."""
    address = next(line.split()[2] for line in lines if line.startswith("gRPC on "))
    request = message_class("ModelInferRequest")(model_name="double")
    x = request.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    x.contents.fp32_contents.extend([1, 2, 3])
    answers = set()
    for _ in range(CONNECTIONS):
        own = (("grpc.use_local_subchannel_pool", 1),)
        with (
            grpc.secure_channel(address, credentials, own)
            if credentials
            else grpc.insecure_channel(address, own)
        ) as channel:
            infer = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            response = infer(request.SerializeToString(), timeout=START_SECONDS)
            answers |= set(
                message_class("ModelInferResponse").FromString(response).raw_output_contents
            )
    return [np.frombuffer(answer, "float32").tolist() for answer in answers]


def test_several_workers_answer_by_grpc(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path, "--workers", "2", "--grpc-port", "0") as (_, lines):
        assert doubled(lines) == [[2, 4, 6]]


def test_several_workers_answer_over_tls(tmp_path, certificate):
    onnx_files.double(tmp_path / "models" / "double" / "1" / "model.onnx")
    trusted = ssl.create_default_context(cafile=certificate[0])
    options = ("--workers", "2", "--grpc-port", "0", "--certificate", *map(str, certificate))
    with server(tmp_path / "models", *options) as (process, lines):
        url = url_in(lines)
        assert url.startswith("https://")
        for _ in range(CONNECTIONS):
            assert httpx.get(f"{url}/v2/models/double", verify=trusted).json()["name"] == "double"
        credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        assert doubled(lines, credentials) == [[2, 4, 6]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0


def test_a_folder_that_cannot_be_served_is_one_error(tmp_path):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    code, text = outcome(str(tmp_path), "--port", "0", "--workers", "2")
    assert code == 2
    assert text.count("\n") == 1
    assert "no model in" in text


def test_a_worker_killed_over_and_over_is_told_of_as_killed(caplog):
    async def code():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(60)"
        )
        child = WorkerHandle(process, RpcChannel({}))
        end = time.monotonic() + 0.1
        while time.monotonic() < end:  # the loop cannot learn of the end meanwhile
            child.kill()
        return await process.wait()

    with caplog.at_level(logging.WARNING, "asyncio"):
        assert asyncio.run(code()) == -signal.SIGKILL
    assert not caplog.messages


def test_the_folder_is_watched_when_the_workers_have_loaded_it(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path, "--workers", "2", "--watch-seconds", "0.01") as (process, lines):
        assert httpx.get(f"{url_in(lines)}/v2/health/ready").status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        assert "was not" not in "\n".join(lines) + process.stdout.read()
