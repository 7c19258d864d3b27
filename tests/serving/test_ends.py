"""How a server ends: under load, with runs that take too long, and when told twice."""

import asyncio
import contextlib
import signal
import threading
import time

import httpx
import onnx_files

from keras_blocks.serving import load_repository
from keras_blocks.serving.service import Service

from .test_lifecycle import until
from .test_server import START_SECONDS, infer, server, url_in

CLIENTS = 8
FOREVER = 10**9  # steps: hours
EXIT_SECONDS = 0.5


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
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(answered) > CLIENTS
    assert all(data == [2, 4, 6] for data in answered)


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
