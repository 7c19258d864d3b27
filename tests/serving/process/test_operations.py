"""What those who run a server see: live while it loads, ready or why not, and an orderly end."""

import contextlib
import signal
import ssl
import subprocess
import threading
import time

import httpx
import onnx_files
import pytest

from keras_blocks.serving import load_repository

from ..conftest import running
from .test_server import COMMAND, START_SECONDS, server, url_in


def free_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def answer(url, **more):
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=10, **more)
    return None


def wait_for(ask):
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if (found := ask()) is not None and found:
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_is_live_while_its_models_load_and_says_that_they_do(workers, tmp_path):
    # Its proof runs a loop that goes on for seconds.
    onnx_files.slow(tmp_path / "slow" / "1" / "model.onnx", more=3000)
    port = free_port()
    options = ["--port", str(port), "--workers", workers, "--threads", "1"]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [*COMMAND, tmp_path, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            live = wait_for(lambda: answer(f"{url}/v2/health/live"))
            ready = answer(f"{url}/v2/health/ready")
            assert live.status_code == 200
            assert (ready.status_code, ready.json()["reason"]) == (
                503,
                "the models are being loaded",
            )
            model = answer(f"{url}/v2/models/slow")
            assert (model.status_code, model.headers["retry-after"]) == (503, "1")
            index = httpx.post(f"{url}/v2/repository/index").json()
            assert [(entry["state"], entry["reason"]) for entry in index] == [
                ("UNAVAILABLE", "loading")
            ]
            wait_for(lambda: answer(f"{url}/v2/health/ready").status_code == 200)
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(START_SECONDS) == 0


def test_ready_and_the_index_say_which_model_is_missing_and_why(tmp_path):
    onnx_files.double(tmp_path / "good" / "1" / "model.onnx")
    broken = tmp_path / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_text("not ONNX")
    (tmp_path / "settings" / "1").mkdir(parents=True)
    (tmp_path / "settings" / "model.toml").write_text("threads = 0")
    with running(load_repository(tmp_path)) as url:
        ready = httpx.get(f"{url}/v2/health/ready")
        assert ready.status_code == 503
        assert "'broken'" in ready.json()["reason"]
        assert "Protobuf parsing failed" in ready.json()["reason"]
        assert "threads is 0" in ready.json()["reason"]
        reasons = {e["name"]: e["reason"] for e in httpx.post(f"{url}/v2/repository/index").json()}
        assert "Protobuf parsing failed" in reasons["broken"]
        assert reasons["good"] == ""
        onnx_files.double(broken)
        onnx_files.double(tmp_path / "settings" / "1" / "model.onnx")
        (tmp_path / "settings" / "model.toml").unlink()
        for name in ("broken", "settings"):
            assert httpx.post(f"{url}/v2/repository/models/{name}/load").status_code == 200
        assert httpx.get(f"{url}/v2/health/ready").json() == {"ready": True}


def test_odd_folders_are_no_models_and_odd_layouts_are(tmp_path):
    for name in ("lost+found", ".git", ".ipynb_checkpoints", "@eaDir"):
        (tmp_path / name).mkdir()
    onnx_files.double(tmp_path / "padded" / "000007" / "model.onnx")
    onnx_files.double(tmp_path / "flat" / "model.onnx")
    onnx_files.double(tmp_path / "usual" / "3" / "model.onnx")
    (tmp_path / "usual" / "lost+found").mkdir()
    with running(load_repository(tmp_path)) as url:
        assert httpx.get(f"{url}/v2/health/ready").status_code == 200
        index = httpx.post(f"{url}/v2/repository/index").json()
        assert [(entry["name"], entry["version"]) for entry in index] == [
            ("flat", "1"),
            ("padded", "7"),
            ("usual", "3"),
        ]
        for name in ("flat", "padded"):
            assert httpx.post(f"{url}/v2/repository/models/{name}/load").status_code == 200


@pytest.mark.parametrize("workers", ["1", "2"])
def test_after_sigterm_requests_are_answered_while_the_server_is_not_ready(workers, tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path, "--drain-seconds", "1.5", "--workers", workers) as (process, lines):
        url = url_in(lines)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: answer(f"{url}/v2/health/ready").status_code == 503)
        if workers == "1":
            assert answer(f"{url}/v2/health/ready").json()["reason"] == "the server ends soon"
            assert answer(f"{url}/v2/models/double").status_code == 200
        assert process.wait(START_SECONDS) == 0


def make_certificate(folder, name, *more):
    files = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run(
        [*command, *more, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    return files


@pytest.mark.usefixtures("certificate")  # which skips where there is no openssl
def test_certificates_and_keys_are_read_again_after_sighup_and_clients_may_have_to_show_one(
    tmp_path,
):
    onnx_files.double(tmp_path / "models" / "double" / "1" / "model.onnx")
    old, new, client = (make_certificate(tmp_path, name) for name in ("old", "new", "client"))
    keys = tmp_path / "keys"
    keys.write_text("first\n")
    options = ["--certificate", *map(str, old), "--client-ca", str(client[0])]
    with server(tmp_path / "models", *options, "--api-keys", str(keys)) as (process, lines):
        url = f"{url_in(lines)}/v2/models/double"

        def asked(trusted, key, shown=client):
            tls = ssl.create_default_context(cafile=trusted)
            if shown is not None:
                tls.load_cert_chain(*shown)
            found = answer(url, verify=tls, headers={"Authorization": f"Bearer {key}"})
            return found and found.status_code

        assert asked(old[0], "first") == 200
        assert asked(old[0], "first", None) is None
        for mine, theirs in zip(new, old, strict=True):
            theirs.write_bytes(mine.read_bytes())
        keys.write_text("second\n")
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: asked(new[0], "second") == 200)
        assert asked(new[0], "first") == 401
        keys.write_text("")  # which would leave the server open
        process.send_signal(signal.SIGHUP)
        threading.Event().wait(0.3)
        assert asked(new[0], "second") == 200
        assert asked(new[0], "none") == 401
