"""A server whose folder holds no models yet, in every mode and number of processes."""

import time

import httpx
import onnx_files
import pytest

from .test_server import server, url_in

MODES = [(), ("none",), ("poll",), ("explicit",), ("explicit", "*")]
X = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
MODEL = "/v2/repository/models/double/"


def options_of(mode):
    chosen = ("--model-control-mode", mode[0]) if mode else ()
    load = ("--load-model", mode[1]) if len(mode) > 1 else ()
    return (*chosen, *load, "--watch-seconds", "0.05")


def wait_for(condition):
    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("mode", "workers"), [*((mode, "1") for mode in MODES), (("explicit",), "2")], ids=str
)
def test_a_server_starts_on_an_empty_folder_and_serves_what_comes(mode, workers, tmp_path):
    options = (*options_of(mode), "--workers", workers)
    with (
        server(tmp_path, *options) as (_, lines),
        httpx.Client(base_url=url_in(lines), timeout=30) as client,
    ):
        assert any(f"{tmp_path}/<name>/<version>/model.onnx" in line for line in lines), lines
        assert client.get("/v2/health/ready").status_code == 200
        assert client.post("/v2/repository/index").json() == []
        assert client.get("/v2/models/stats").json() == {"model_stats": []}
        assert client.get("/metrics").status_code == client.get("/").status_code == 200
        assert client.get("/v2/openapi.json").json()["paths"]
        onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
        if mode[:1] == ("none",):
            assert client.post(f"{MODEL}load").status_code == 403
            return
        if mode[:1] == ("explicit",):
            assert client.post(f"{MODEL}load").status_code == 200
        assert wait_for(lambda: client.get("/v2/models/double/ready").status_code == 200)
        assert client.post("/v2/models/double/infer", json=X).json()["outputs"][0]["data"] == [
            *(2, 4, 6)
        ]


def test_a_server_whose_last_model_is_unloaded_goes_on(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path) as (_, lines), httpx.Client(base_url=url_in(lines)) as client:
        assert client.post(f"{MODEL}unload").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/openapi.json").json()["paths"]
        assert client.post(f"{MODEL}load").status_code == 200
        assert client.post("/v2/models/double/infer", json=X).status_code == 200
