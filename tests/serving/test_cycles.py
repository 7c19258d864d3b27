"""Nothing of an answered request waits for Python's cyclic collector, over any protocol."""

import asyncio
import gc
import json
import socket
import ssl
import types
from collections import Counter

import grpc
import numpy as np
import onnx_files
import pytest

from keras_blocks.serving import BatchSettings, Limits, load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.inference.service import Service
from keras_blocks.serving.process.server import serving
from keras_blocks.serving.telemetry.request_record import Observer
from keras_blocks.serving.transport.sockets import open_listener

Request = message_class("ModelInferRequest")
TIMES = 2
ROWS = 50


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("double", "gather", "row_sums", "slow"):
        getattr(onnx_files, name)(folder / name / "1" / "model.onnx")
    return load_repository(folder, threads=1)


def http(target, body, *headers):
    head = [f"POST {target} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


def infer(model, name, datatype, shape, data, *headers, **more):
    tensor = {"name": name, "datatype": datatype, "shape": shape, "data": data}
    body = json.dumps({"inputs": [tensor], **more}).encode()
    return http(f"/v2/models/{model}/infer", body, *headers)


X = np.ones((ROWS, 3), "float32")
GOOD = infer("double", "x", "FP32", [ROWS, 3], X.tolist())
WEB = {
    "answered": [GOOD],
    "one after another": [GOOD, GOOD, GOOD],
    "in one piece": [GOOD + GOOD],
    "in pieces": [GOOD[:100], GOOD[100:]],
    "not of the contract": [infer("double", "x", "FP32", [1, 2], [1, 2])],
    "refused by the model": [infer("gather", "x", "INT64", [1], [99])],
    "an answer too large": [infer("double", "x", "FP32", [6000, 3], [1] * 18000)],
    "a time that is over": [
        infer("slow", "steps", "INT64", [1], [300], parameters={"timeout": 1}),
    ],
    "no model": [infer("nope", "x", "FP32", [1], [1])],
    "no JSON": [http("/v2/models/double/infer", b"{")],
    "no HTTP": [b"nonsense\r\n\r\n"],
    "too large": [b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n"],
    "chunks that are too large": [
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n493e0\r\n" + b"x" * 300_000
    ],
    "half a body": [GOOD[:-9]],
    "counts": [b"GET /metrics HTTP/1.1\r\n\r\n", b"GET /v2/models/stats HTTP/1.1\r\n\r\n"],
    "ready": [b"GET /v2/health/ready HTTP/1.1\r\n\r\n"],
}


async def ask_web(port, pieces, tls=None):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    for piece in pieces:
        writer.write(piece)
        await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=0.2)
    await asyncio.sleep(0.05)
    writer.close()


def message(model="double", rows=ROWS, **more):
    made = Request(model_name=model, raw_input_contents=[bytes(12 * rows)], **more)
    made.inputs.add(name="x", datatype="FP32", shape=[rows, 3])
    return made.SerializeToString()


CALLS = {
    "answered": [message()],
    "not of the contract": [message(rows=0, id="x") + b"\x32\x03abc"],
    "an answer too large": [message(rows=6000)],
    "no model": [message("nope")],
    "no message": [b"\xff\xff"],
}


async def ask_grpc(address, messages, streamed):
    async with grpc.aio.insecure_channel(address) as channel:
        path = f"/{SERVICE}/Model{'StreamInfer' if streamed else 'Infer'}"
        try:
            if streamed:
                async for _ in channel.stream_stream(path)(iter(messages * 2), timeout=20):
                    pass
            else:
                await channel.unary_unary(path)(messages[0], timeout=20)
        except grpc.aio.AioRpcError:
            pass


async def garbage_of(repository, asks, observed=False, certificate=None):
    """What only the cyclic collector would free after requests: case -> how much, by kind."""
    service = Service(
        repository,
        limits=Limits(body_bytes=200_000, answer_bytes=60_000),
        settings=BatchSettings(runs_at_once=1),
    )
    observer = Observer([lambda seen: None]) if observed else None
    with open_listener("127.0.0.1", 0) as http, open_listener("127.0.0.1", 0) as grpc_too:
        ports = [sock.getsockname()[1] for sock in (http, grpc_too)]
        async with serving(service, http, grpc_too, 0, certificate, observer=observer):
            found = {case: await _garbage_after(ask, ports) for case, ask in asks.items()}
    return {case: kinds for case, kinds in found.items() if kinds}


async def _garbage_after(ask, ports):
    await ask(*ports)  # what is made once
    gc.collect()
    gc.freeze()  # what is there already is not looked at
    gc.disable()
    try:
        for _ in range(TIMES):
            await ask(*ports)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        return Counter(filter(None, map(kind_of, gc.garbage)))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.unfreeze()


def kind_of(entry):
    """How an object of ours is called; what belongs to the asking side is left out."""
    module = getattr(type(entry), "__module__", "") or ""
    if module.startswith(("keras_blocks", "httptools")):
        return type(entry).__qualname__
    if isinstance(entry, np.ndarray):
        return "array"
    if isinstance(entry, types.FunctionType | types.MethodType):
        return entry.__qualname__ if entry.__module__.startswith("keras_blocks") else ""
    if isinstance(entry, types.FrameType):
        return entry.f_code.co_name if "serving" in entry.f_code.co_filename else ""
    return ""


def web(pieces, tls=None):
    return lambda port, _: ask_web(port, pieces, tls)


def rpc(messages, streamed):
    return lambda _, port: ask_grpc(f"127.0.0.1:{port}", messages, streamed)


def test_no_request_over_http_leaves_cycles(repository):
    asks = {case: web(pieces) for case, pieces in WEB.items()}
    assert asyncio.run(garbage_of(repository, asks, observed=True)) == {}
    asks = {"answered": asks["answered"]}
    assert asyncio.run(garbage_of(repository, asks)) == {}


def test_no_request_over_tls_leaves_cycles(repository, certificate):
    tls = ssl.create_default_context(cafile=certificate[0])
    asks = {"answered": web(WEB["answered"], tls), "half a body": web(WEB["half a body"], tls)}
    assert asyncio.run(garbage_of(repository, asks, certificate=certificate)) == {}


def test_no_call_over_grpc_leaves_cycles(repository):
    made = Request(model_name="slow", raw_input_contents=[np.int64([2000]).tobytes()])
    made.inputs.add(name="steps", datatype="INT64", shape=[1])

    async def give_up(_, port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")(made.SerializeToString())
            await asyncio.sleep(0.1)
            call.cancel()
        await asyncio.sleep(1.0)

    asks = {
        (case, streamed): rpc(messages, streamed)
        for case, messages in CALLS.items()
        for streamed in (False, True)
    }
    found = asyncio.run(garbage_of(repository, {**asks, "given up": give_up}, observed=True))
    assert found == {}


def test_a_client_that_leaves_before_its_answer_leaves_no_cycles(repository):
    async def ask(port, _):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(infer("slow", "steps", "INT64", [1], [300]))
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)

    assert asyncio.run(garbage_of(repository, {"left": ask})) == {}
