"""Who may load and unload models, and where."""

import asyncio
import contextlib

import grpc
import httpx
import onnx_files
import pytest

from keras_blocks.errors import KerasBlocksError
from keras_blocks.serving import load_repository
from keras_blocks.serving.grpc.messages import SERVICE
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.process.config import ServerOptions
from keras_blocks.serving.process.server import serving
from keras_blocks.serving.transport.sockets import open_listener, port_after

from .test_server import outcome, server, url_in

CHANGE = "/v2/repository/models/double/unload"
METHOD = f"/{SERVICE}/RepositoryModelUnload"


def unload_by_grpc(address):
    """The code and the message of a call that unloads the model `double`."""
    message = b"\x12\x06double"  # model_name, field 2
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(METHOD)(message, timeout=30)
        except grpc.RpcError as error:
            return error.code(), error.details()
    return grpc.StatusCode.OK, ""


def grpc_in(lines):
    return next(line.split()[2] for line in lines if line.startswith("gRPC on "))


def test_a_closed_server_names_the_option_by_both_protocols(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with server(tmp_path, "--model-control-mode", "poll") as (_, lines):
        response = httpx.post(url_in(lines) + CHANGE)
        assert response.status_code == 403
        assert "--model-control-mode poll" in response.json()["error"]
        code, details = unload_by_grpc(grpc_in(lines))
        assert code == grpc.StatusCode.PERMISSION_DENIED
        assert "--model-control-mode poll" in details
        assert httpx.get(f"{url_in(lines)}/v2/models/double/ready").status_code == 200


def test_explicit_mode_serves_what_was_asked_for_and_loads_the_rest_on_request(tmp_path):
    for name in ("double", "other"):
        onnx_files.double(tmp_path / name / "1" / "model.onnx")
    options = ("--model-control-mode", "explicit", "--load-model", "double")
    with server(tmp_path, *options) as (_, lines), httpx.Client(base_url=url_in(lines)) as client:
        assert client.get("/v2/health/ready").status_code == 200
        assert client.get("/v2/models/other/ready").status_code == 404
        assert client.post("/v2/repository/models/other/load").status_code == 200
        assert client.get("/v2/models/other/ready").status_code == 200
        assert client.post(CHANGE).status_code == 200


def test_an_admin_port_is_where_models_are_unloaded(models_folder):
    async def story():
        service = Service(load_repository(models_folder, threads=1))
        with contextlib.ExitStack() as opened:
            sockets = [opened.enter_context(open_listener("127.0.0.1", 0)) for _ in range(3)]
            closed = ServerOptions(models_folder, admin_port=0).control
            admin = (sockets[1], sockets[2])
            async with serving(service, sockets[0], admin=admin, control=closed):
                ports = [sock.getsockname()[1] for sock in sockets]
                async with httpx.AsyncClient() as client:
                    main = await client.post(f"http://127.0.0.1:{ports[0]}{CHANGE}")
                    there = await client.post(f"http://127.0.0.1:{ports[1]}{CHANGE}")
                return main, there

    main, there = asyncio.run(story())
    assert main.status_code == 403
    assert "--admin-port" in main.json()["error"]
    assert there.status_code == 200


def test_the_options_that_contradict_each_other_are_named(tmp_path):
    with pytest.raises(KerasBlocksError, match="--admin-port has no use"):
        ServerOptions(tmp_path, model_control_mode="none", admin_port=9000)
    with pytest.raises(KerasBlocksError, match="--load-model needs"):
        ServerOptions(tmp_path, load_models=("double",))
    with pytest.raises(KerasBlocksError, match="expected one of none, poll, explicit"):
        ServerOptions(tmp_path, model_control_mode="all")


def test_the_last_port_leaves_none_for_grpc(tmp_path):
    code, text = outcome(str(tmp_path), "--port", "65535")
    assert code == 1
    assert text.count("\n") == 1
    assert "--port 65535 leaves no port for gRPC" in text
    assert (port_after(0, "--port"), port_after(8080, "--port")) == (0, 8081)
