"""What web pages of other origins may do: nothing that changes the server, and ask if named."""

import asyncio
import contextlib
import threading

import httpx
import onnx_files
import pytest
from click.testing import CliRunner

from keras_blocks.cli.main import main
from keras_blocks.serving import load_repository
from keras_blocks.serving.auth import ApiKeys
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.origins import Origins
from keras_blocks.serving.process.server import serving
from keras_blocks.serving.transport.sockets import open_listener

PAGE = "https://page.example:8443"
KEY = {"Authorization": "Bearer secret"}
X = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x"}


@contextlib.contextmanager
def served(folder, keys=None, **options):
    onnx_files.double(folder / "double" / "1" / "model.onnx")
    loop, started, stopping = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def run(listener):
        service = Service(load_repository(folder, threads=1), keys=keys)
        async with serving(service, listener, **options):
            started.set()
            await stopping.wait()

    with open_listener("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=lambda: loop.run_until_complete(run(listener)))
        thread.start()
        try:
            while not started.wait(0.01):
                assert thread.is_alive()
            port = listener.getsockname()[1]
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join()
            loop.close()


FOREIGN = {
    "another host": {"Origin": "https://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "a sandboxed page": {"Origin": "null"},
    "a form of another site": {"Sec-Fetch-Site": "cross-site"},
    "a page of a neighbour": {"Sec-Fetch-Site": "same-site", "Origin": "http://a.localhost"},
}


def test_no_foreign_page_loads_or_unloads_models_and_programs_and_the_own_page_do(tmp_path):
    with served(tmp_path, origins=Origins(("*",))) as client:
        for case, headers in FOREIGN.items():
            for change in ("unload", "load"):
                path = f"/v2/repository/models/double/{change}"
                answer = client.post(path, headers=headers)
                assert (answer.status_code, case) == (403, case)
                assert "--cors-origin" in answer.json()["error"]
        own = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
        for headers in ({}, own):
            for change in ("unload", "load"):
                path = f"/v2/repository/models/double/{change}"
                assert client.post(path, headers=headers).status_code == 200
    with served(tmp_path, origins=Origins((PAGE,))) as client:
        headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
        path = "/v2/repository/models/double/unload"
        assert client.post(path, headers=headers).status_code == 200


@pytest.mark.parametrize(("allowed", "seen"), [((PAGE,), True), (("*",), True), ((), False)])
def test_a_named_page_may_read_answers_and_refusals(allowed, seen, tmp_path):
    with served(tmp_path, ApiKeys(["secret"]), origins=Origins(allowed)) as client:
        path, origin = "/v2/models/double/infer", {"Origin": PAGE}
        preflight = client.options(path, headers={**origin, **PREFLIGHT})  # without the key
        shown = preflight.headers.get("access-control-allow-origin")
        assert (preflight.status_code, shown) == (200, PAGE if seen else None)
        assert ("POST" in preflight.headers.get("access-control-allow-methods", "")) == seen
        allowed_headers = preflight.headers.get("access-control-allow-headers", "").lower()
        assert all((name in allowed_headers) == seen for name in ("authorization", "content-type"))
        for headers, status in ((KEY, 200), ({}, 401)):
            answer = client.post(path, json=X, headers={**origin, **headers})
            assert answer.status_code == status
            shown = answer.headers.get("access-control-allow-origin")
            assert shown == (PAGE if seen else None)
        missing = client.get("/v2/models/nope", headers={**origin, **KEY})
        assert ("access-control-allow-origin" in missing.headers) == seen


def test_a_page_that_is_not_named_gets_no_leave_and_a_post_is_no_preflight(tmp_path):
    with served(tmp_path, ApiKeys(["secret"]), origins=Origins((PAGE,))) as client:
        other = {"Origin": "https://other.example", **PREFLIGHT}
        headers = client.options("/v2/models/double/infer", headers=other).headers
        assert not [name for name in headers if name.startswith("access-control")]
        assert headers["vary"] == "Origin"
        assert client.post("/v2/models/double/infer", json=X, headers=PREFLIGHT).status_code == 401


def test_options_says_what_a_path_has(tmp_path):
    with served(tmp_path) as client:
        assert client.options("/v2/models/double/infer").headers["allow"] == "POST, OPTIONS"
        assert client.options("/v2").headers["allow"] == "GET, HEAD, OPTIONS"
        assert client.options("/nothing").status_code == 404


def test_everything_is_below_the_base_path_and_probes_need_none(tmp_path):
    with served(tmp_path, ApiKeys(["secret"]), base_path="/serving/a") as client:
        assert client.post("/serving/a/v2/models/double/infer", json=X, headers=KEY).json()[
            "outputs"
        ]
        assert client.post("/serving/a/v2/models/double/infer", json=X).status_code == 401
        assert client.get("/v2/health/live").status_code == 200
        assert client.get("/serving/a").headers["location"] == "/serving/a/"
        page = client.get("/serving/a/")
        assert page.status_code == 200
        for name in ("web/page.js", "web/page.css", "v2/openapi.json", "metrics"):
            assert f'"{name}"' in page.text
            assert client.get(f"/serving/a/{name}", headers=KEY).status_code == 200
        document = client.get("/serving/a/v2/openapi.json", headers=KEY).json()
        assert document["servers"] == [{"url": "/serving/a"}]
        assert client.get("/serving/ab/v2", headers=KEY).status_code == 404


@pytest.mark.parametrize(
    ("prefix", "url"),
    [("/behind/proxy/", "/behind/proxy"), ("https://evil.example", "/"), ("/a b", "/"), ("", "/")],
)
def test_the_document_says_what_a_proxy_took_away(prefix, url, tmp_path):
    with served(tmp_path) as client:
        headers = {"X-Forwarded-Prefix": prefix}
        document = client.get("/v2/openapi.json", headers=headers).json()
        assert document["servers"] == [{"url": url}]


@pytest.mark.parametrize("options", [["--cors-origin", "example.com"], ["--base-path", "/a?b"]])
def test_what_is_no_origin_or_path_is_told(options, tmp_path):
    result = CliRunner().invoke(main, ["serve", str(tmp_path), *options])
    assert result.exit_code == 1
    assert "expected one like" in result.output
