"""API keys and TLS, by both protocols."""

import asyncio
import socket
import ssl
import subprocess

import grpc
import httpx
import onnx_files
import pytest

from keras_blocks.errors import KerasBlocksError
from keras_blocks.serving import Client, ServerError, load_repository, serve
from keras_blocks.serving.auth import ApiKeys, read_keys, tls_context
from keras_blocks.serving.grpc.messages import SERVICE
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.process.server import serving
from keras_blocks.serving.transport.sockets import open_listener

from .conftest import running_both

KEY = "a-key-of-ours"


@pytest.fixture
def folder(tmp_path):
    onnx_files.double(tmp_path / "models" / "double" / "1" / "model.onnx")
    return tmp_path / "models"


@pytest.fixture
def addresses(folder):
    keys = ApiKeys(["another", KEY])
    with running_both(load_repository(folder), keys=keys) as addresses:
        yield addresses


WRONG = [
    None,
    "",
    KEY,
    f"Basic {KEY}",
    "Bearer",
    f"Bearer {KEY}x",
    f"Bearer {KEY[:-1]}",
    "Bearer é",
]


@pytest.mark.parametrize("authorization", WRONG)
def test_without_a_right_key_everything_but_health_is_refused(addresses, authorization):
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    with httpx.Client(base_url=addresses[0], headers=headers) as client:
        for method, path in (
            ("GET", "/v2"),
            ("GET", "/metrics"),
            ("GET", "/v2/models/double"),
            ("POST", "/v2/models/double/infer"),
            ("POST", "/v2/repository/models/double/unload"),
        ):
            response = client.request(method, path)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
            assert KEY not in response.text
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200


def test_with_a_right_key_the_client_is_answered(addresses):
    for key in ("another", KEY):
        with Client(addresses[0], api_key=key) as client:
            assert client.infer("double", {"x": [[1, 2, 3]]})["y"].tolist() == [[2, 4, 6]]
    with (
        Client(addresses[0], api_key="wrong") as client,
        pytest.raises(ServerError, match="API key") as caught,
    ):
        client.metadata("double")
    assert caught.value.status == 401


def test_who_has_no_key_is_refused_before_the_body_comes(addresses):
    host, _, port = addresses[0].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        head = "POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n"
        client.sendall(head.encode() + b" " * 999_999)
        client.sendall(b" ")
        assert client.recv(1000).startswith(b"HTTP/1.1 401 ")
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_who_waits_to_be_told_to_send_a_body_is_told_and_refused_without_a_key(addresses):
    host, _, port = addresses[0].removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        head = "POST /v2/models/double/infer HTTP/1.1\r\nExpect: 100-continue\r\n"
        client.sendall(f"{head}Content-Length: 2\r\n\r\n".encode())
        assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}")
        assert client.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_grpc_wants_the_key_as_metadata(addresses):
    with grpc.insecure_channel(addresses[1]) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/ServerMetadata")
        with pytest.raises(grpc.RpcError) as caught:
            ask(b"", timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert b"keras-blocks" in ask(
            b"", timeout=20, metadata=[("authorization", f"Bearer {KEY}")]
        )
        assert channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=20) == b"\x08\x01"


def test_keys_are_read_from_the_lines_of_a_file_and_none_is_an_error(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# ours\n\n{KEY}\n")
    read_keys(path).check(f"bearer {KEY}".encode())
    path.write_text(f"{KEY}\n", encoding="utf-8-sig")  # as some editors do
    read_keys(path).check(f"bearer {KEY}".encode())
    path.write_text("\n# nothing\n")
    with pytest.raises(KerasBlocksError, match="holds no API key"):
        read_keys(path)


def test_tls_carries_http_and_grpc(folder, certificate):
    trusted = ssl.create_default_context(cafile=certificate[0])
    credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())

    async def ask():
        with open_listener("127.0.0.1", 0) as listener, open_listener("127.0.0.1", 0) as rpc:
            ports = [sock.getsockname()[1] for sock in (listener, rpc)]
            service = Service(load_repository(folder))
            async with serving(service, listener, rpc, certificate=certificate):
                url = f"https://127.0.0.1:{ports[0]}"
                async with httpx.AsyncClient(base_url=url, verify=trusted) as client:
                    answer = await client.get("/v2/models/double")
                channel = grpc.aio.secure_channel(f"127.0.0.1:{ports[1]}", credentials)
                async with channel:
                    live = await channel.unary_unary(f"/{SERVICE}/ServerLive")(b"", timeout=20)
                async with httpx.AsyncClient() as client:
                    with pytest.raises(httpx.TransportError):
                        await client.get(f"http://127.0.0.1:{ports[0]}/v2")
        return answer.json()["name"], live

    assert asyncio.run(ask()) == ("double", b"\x08\x01")


def test_files_that_are_no_certificate_are_named(tmp_path, certificate):
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    with pytest.raises(KerasBlocksError, match=r"broken\.pem"):
        tls_context(broken, certificate[1], "h2")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_behind_a_password_ends_the_start_with_its_name(tmp_path, certificate, workers):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    locked = tmp_path / "locked.pem"
    command = ["openssl", "rsa", "-aes128", "-passout", "pass:secret", "-in", certificate[1]]
    subprocess.run([*command, "-out", locked], check=True, capture_output=True)
    with pytest.raises(KerasBlocksError, match=r"locked\.pem hold no certificate"):
        serve(tmp_path, port=0, workers=workers, certificate=(certificate[0], locked))
