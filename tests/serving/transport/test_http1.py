"""The HTTP server on the wire: raw bytes in, raw bytes out."""

import contextlib
import gzip
import json
import socket
import time
import zlib

import onnx_files
import pytest

from keras_blocks.serving import Limits, load_repository

from ..conftest import running

SECONDS = 0.4  # what the server waits; much longer than a busy machine lets a thread wait
BODY_LIMIT = 100_000
BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}
).encode()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    onnx_files.double(folder / "double" / "1" / "model.onnx")
    onnx_files.slow(folder / "slow" / "1" / "model.onnx")
    limits = Limits(body_bytes=BODY_LIMIT, silent_seconds=SECONDS, idle_seconds=4 * SECONDS)
    with running(load_repository(folder, threads=1), limits=limits) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        yield host, int(port)


@pytest.fixture
def client(address):
    with contextlib.closing(socket.create_connection(address, timeout=20)) as client:
        yield client


def post(body=BODY, path="/v2/models/double/infer", *headers):
    lines = [f"POST {path} HTTP/1.1", "Host: test", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answer(stream):
    """Status, headers and body of the next answer."""
    status = int(stream.readline().split()[1])
    headers = {}
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return status, headers, stream.read(int(headers.get("content-length", 0)))


def is_right(body):
    return json.loads(body)["outputs"][0]["data"] == [2, 4, 6]


def test_requests_follow_one_another_on_a_connection(client):
    stream = client.makefile("rb")
    for _ in range(3):
        client.sendall(post())
        status, headers, body = answer(stream)
        assert status == 200
        assert is_right(body)
        assert headers["content-type"] == "application/json"
        assert headers["date"].endswith("GMT")


def other_post(factor):
    """Like `post()`, with the same head and another body."""
    body = BODY.replace(b"[1, 2, 3]", b"[%d, 2, 3]" % factor)
    assert len(body) == len(BODY)
    return post().replace(BODY, body)


@pytest.mark.parametrize("cut", [1, 30, -len(BODY) - 1, -len(BODY), -5, None])
def test_a_head_that_came_before_goes_with_any_body(client, cut):
    stream = client.makefile("rb")
    client.sendall(post())
    assert is_right(answer(stream)[2])
    # The second in two pieces, the third and fourth in one, the last alone again.
    second = other_post(5)
    for piece in (second[:cut], second[cut:] if cut else b"", other_post(6) + other_post(7)):
        client.sendall(piece)
        time.sleep(0.05)
    client.sendall(other_post(8))
    sent = [json.loads(answer(stream)[2])["outputs"][0]["data"][0] for _ in range(4)]
    assert sent == [10, 12, 14, 16]


@pytest.mark.parametrize(
    "line", [b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: upgrade\r\n"]
)
def test_heads_that_say_more_than_what_is_asked_are_read_each_time(client, line):
    client.sendall(post())
    stream = client.makefile("rb")
    assert is_right(answer(stream)[2])
    for _ in range(2):
        client.sendall(post().replace(b"\r\n", b"\r\n" + line, 1))
        if b"Expect" in line:
            assert stream.readline() + stream.readline() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert is_right(answer(stream)[2])
        if b"close" in line:
            assert stream.read() == b""
            break


def test_requests_that_come_byte_by_byte_are_read(client):
    for byte in post():
        client.sendall(bytes([byte]))
    assert is_right(answer(client.makefile("rb"))[2])


def test_pipelined_requests_are_answered_in_order(client):
    count = 100
    paths = ["/v2", "/v2/models/double", "/nope"]
    client.sendall(b"".join(f"GET {p} HTTP/1.1\r\n\r\n".encode() for p in paths * count) + post())
    stream = client.makefile("rb")
    assert [answer(stream)[0] for _ in range(3 * count)] == [200, 200, 404] * count
    assert is_right(answer(stream)[2])


def test_a_body_in_chunks_is_read(client):
    pieces = [BODY[:10], BODY[10:]]
    client.sendall(b"POST /v2/models/double/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in [*pieces, b""]:
        client.sendall(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    assert is_right(answer(client.makefile("rb"))[2])


def test_a_body_in_chunks_of_one_byte_is_read(client):
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    client.sendall(CHUNKED + b"\r\n" + chunks + b"0\r\n\r\n")
    assert is_right(answer(client.makefile("rb"))[2])


CHUNKED = b"POST /v2/models/double/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"


def test_headers_behind_a_body_in_chunks_change_nothing(client):
    head = CHUNKED + b"X-Request-Id: mine\r\n\r\n"
    trailers = b"X-Request-Id: other\r\nContent-Type: text/html\r\n\r\n"
    client.sendall(head + f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n" + trailers)
    status, headers, body = answer(client.makefile("rb"))
    assert (status, headers["x-request-id"]) == (200, "mine")
    assert is_right(body)


@pytest.mark.parametrize("line", [b"a: b\r\n", b"a"])
def test_headers_behind_a_body_do_not_go_on_for_ever(client, line):
    client.sendall(CHUNKED + b"\r\n2\r\n{}\r\n0\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(10_000):  # more than lies in the buffers between us
            client.sendall(line * (10_000 // len(line)))
        pytest.fail("it takes them all")
    assert answer(client.makefile("rb"))[0] == 431


def test_a_client_that_does_not_read_its_answer_is_let_go(address):
    rows = BODY_LIMIT // 20
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 3], "data": [1] * 3 * rows}
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    with contextlib.closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(address)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(post(body))
            pytest.fail("it is still there")


def test_head_gets_the_headers_of_get_alone(client):
    stream = client.makefile("rb")
    client.sendall(b"HEAD /v2 HTTP/1.1\r\n\r\n")
    assert stream.readline().startswith(b"HTTP/1.1 200")
    while stream.readline().strip():
        pass
    client.sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
    assert answer(stream)[2] == b'{"live":true}'


OFFERS = {
    "Java": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: A"],
    "a web socket": ["Connection: keep-alive, Upgrade", "Upgrade: websocket"],
    "TLS": ["Upgrade: TLS/1.0", "Connection: upgrade"],
}


@pytest.mark.parametrize("cut", [None, 40, -40, -1])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_to_upgrade_is_passed_over_and_the_connection_goes_on(client, offer, cut):
    offered = post(BODY, "/v2/models/double/infer", *OFFERS[offer])
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    chunked = offered.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
    stream = client.makefile("rb")
    for sent in (offered, offered + offered, chunked.replace(BODY, chunks), offered):
        for piece in (sent[:cut], sent[cut:] if cut else b""):
            client.sendall(piece)
            time.sleep(0.01)
        for _ in range(sent.count(b"POST")):
            status, headers, body = answer(stream)
            assert (status, headers.get("connection")) == (200, None), body
            assert is_right(body)
    client.sendall(b"GET /v2 HTTP/1.1\r\n" + "\r\n".join(OFFERS[offer]).encode() + b"\r\n\r\n")
    assert answer(stream)[0] == 200


def test_a_tunnel_is_not_opened(client):
    client.sendall(b"CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n\x16\x03\x01")
    stream = client.makefile("rb")
    status, headers, _ = answer(stream)
    assert (status, headers["connection"]) == (404, "close")
    assert stream.read() == b""


def test_a_connection_of_http_1_0_that_is_kept_is_said_to_be(client):
    stream = client.makefile("rb")
    for _ in range(3):
        client.sendall(post().replace(b"HTTP/1.1\r\n", b"HTTP/1.0\r\nConnection: keep-alive\r\n"))
        status, headers, body = answer(stream)
        assert (status, headers["connection"], is_right(body)) == (200, "keep-alive", True)
    client.sendall(post().replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer(stream)[1]["connection"] == "close"
    assert stream.read() == b""


def test_a_client_of_http_1_0_is_not_told_to_go_on(client):
    sent = post(BODY, "/v2/models/double/infer", "Expect: 100-continue")
    client.sendall(sent.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert answer(client.makefile("rb"))[0] == 200


def members(data, size):
    return b"".join(gzip.compress(data[i : i + size]) for i in range(0, len(data), size))


PACKED = {
    "one member": ("gzip", gzip.compress(BODY), 200),
    "several members": ("gzip", members(BODY, 20), 200),
    "a member for each byte": ("gzip", members(BODY, 1), 200),
    "an empty member": ("gzip", gzip.compress(BODY) + gzip.compress(b""), 200),
    "its old name": ("X-GZIP", gzip.compress(BODY), 200),
    "twice": ("deflate, gzip", gzip.compress(zlib.compress(BODY)), 200),
    "not at all": ("identity", BODY, 200),
    "a member cut off": ("gzip", members(BODY, 40)[:-3], 400),
    "something behind it": ("gzip", gzip.compress(BODY) + b"more", 400),
    "something behind deflate": ("deflate", zlib.compress(BODY) + b"more", 400),
    "nothing": ("gzip", b"", 400),
    "members over the limit": ("gzip", gzip.compress(bytes(2**16)) * 2, 413),
    "too often": ("gzip, gzip, gzip, gzip", BODY, 415),
}


@pytest.mark.parametrize("chunked", [False, True], ids=["", "in chunks"])
@pytest.mark.parametrize("case", PACKED)
def test_a_packed_body_is_read_in_every_legal_form(client, case, chunked):
    encoding, body, expected = PACKED[case]
    head = b"POST /v2/models/double/infer HTTP/1.1\r\nContent-Encoding: " + encoding.encode()
    if chunked:
        parts = [body[i : i + 50] for i in range(0, len(body), 50)]
        framed = b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts)
        client.sendall(head + b"\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + framed)
        client.sendall(b"0\r\nX-Sum: 1\r\n\r\n")
    else:
        client.sendall(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    status, _, content = answer(client.makefile("rb"))
    assert status == expected, content
    assert expected != 200 or is_right(content)


CLOSING = {
    "HTTP/1.0": b"GET /v2 HTTP/1.0\r\n\r\n",
    "a header": b"GET /v2 HTTP/1.1\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("case", CLOSING)
def test_a_connection_ends_where_the_client_wants_it(client, case):
    client.sendall(CLOSING[case])
    stream = client.makefile("rb")
    assert answer(stream)[1]["connection"] == "close"
    assert stream.read() == b""


@pytest.mark.parametrize("sent", [b"", b"GET /v2 HT", b"POST /v2/models/double/infer HTTP/1.1\r\n",
                                  post()[:-5]])  # fmt: skip
def test_a_client_that_hangs_up_is_forgotten(address, client, sent):
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1000) == b""
    with socket.create_connection(address, timeout=20) as other:
        other.sendall(post())
        assert is_right(answer(other.makefile("rb"))[2])


def test_what_is_no_http_gets_400_behind_the_answers_before_it(client):
    client.sendall(post() + b"\x16\x03\x01 what is this\r\n\r\n" + post())
    stream = client.makefile("rb")
    assert is_right(answer(stream)[2])
    status, headers, body = answer(stream)
    assert (status, headers["connection"]) == (400, "close")
    assert "no HTTP request" in json.loads(body)["error"]
    assert stream.read() == b""


BROKEN_HEADERS = {
    "two lengths": ["Content-Length: 5", "Content-Length: 6"],
    "a length and chunks": ["Content-Length: 5", "Transfer-Encoding: chunked"],
    "a negative length": ["Content-Length: -1"],
    "a length that is no number": ["Content-Length: five"],
    "a length beyond 64 bits": ["Content-Length: 99999999999999999999999"],
    "a space before the colon": ["Content-Length : 5"],
}


@pytest.mark.parametrize("case", BROKEN_HEADERS)
def test_headers_that_two_servers_could_read_in_two_ways_get_400(client, case):
    lines = ["POST /v2/models/double/infer HTTP/1.1", *BROKEN_HEADERS[case], "", ""]
    client.sendall("\r\n".join(lines).encode())
    stream = client.makefile("rb")
    assert answer(stream)[0] in (400, 413)
    assert stream.read() == b""


def test_headers_without_end_get_431(client):
    client.sendall(b"GET /v2 HTTP/1.1\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            client.sendall(b"x-more: " + b"y" * 2000 + b"\r\n")
    assert answer(client.makefile("rb"))[0] == 431


# Too much, too slow


@pytest.mark.parametrize("size", [BODY_LIMIT + 1, 50 * BODY_LIMIT])
def test_a_body_over_the_limit_is_read_and_refused_and_the_connection_goes_on(client, size):
    client.sendall(post(b" " * size))
    stream = client.makefile("rb")
    status, _, body = answer(stream)
    assert status == 413
    assert str(BODY_LIMIT) in json.loads(body)["error"]
    client.sendall(post())
    assert is_right(answer(stream)[2])


def test_a_body_of_unknown_length_over_the_limit_is_refused(client):
    client.sendall(b"POST /v2/models/double/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(12):
        client.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
    client.sendall(b"0\r\n\r\n")
    assert answer(client.makefile("rb"))[0] == 413


@pytest.mark.parametrize(
    "headers", [["Content-Length: 10000000000000000000"],
                [f"Content-Length: {BODY_LIMIT + 1}", "Expect: 100-continue"]],
)  # fmt: skip
def test_a_body_that_is_declared_too_large_is_refused_before_it_is_sent(client, headers):
    lines = ["POST /v2/models/double/infer HTTP/1.1", *headers, "", ""]
    client.sendall("\r\n".join(lines).encode())
    stream = client.makefile("rb")
    assert answer(stream)[0] == 413
    assert stream.read() == b""


def test_a_client_that_waits_for_it_is_told_to_go_on(client):
    request = post(BODY, "/v2/models/double/infer", "Expect: 100-continue")
    client.sendall(request[: -len(BODY)])
    stream = client.makefile("rb")
    assert stream.readline() == b"HTTP/1.1 100 Continue\r\n"
    assert stream.readline() == b"\r\n"
    client.sendall(BODY)
    assert is_right(answer(stream)[2])


def test_a_body_that_stops_coming_is_not_waited_for_and_a_slow_one_is(client):
    request = post()
    client.sendall(request[:-3])
    for byte in request[-3:-1]:
        time.sleep(SECONDS * 0.6)
        client.sendall(bytes([byte]))
    stream = client.makefile("rb")
    status, _, body = answer(stream)
    assert status == 408
    assert json.loads(body)["error"] == f"no more of the body came within {SECONDS:g} seconds"
    assert stream.read() == b""


def test_headers_that_drip_are_not_waited_for(client):
    client.sendall(b"GET /v2 HTTP/1.1\r\n")
    started = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while time.monotonic() - started < 2 * SECONDS:
            client.sendall(b"x: y\r\n")
            time.sleep(SECONDS / 8)
    assert answer(client.makefile("rb"))[0] == 408


def test_an_idle_connection_is_closed(client):
    client.sendall(post())
    stream = client.makefile("rb")
    answer(stream)
    started = time.monotonic()
    assert stream.read() == b""
    assert 2 * SECONDS < time.monotonic() - started < 15


def test_a_client_that_goes_away_takes_its_request_out_of_the_queue(address):
    steps = {"name": "steps", "datatype": "INT64", "shape": [1], "data": [300]}
    request = post(json.dumps({"inputs": [steps]}).encode(), "/v2/models/slow/infer")
    clients = [socket.create_connection(address, timeout=60) for _ in range(12)]
    for client in clients:
        client.sendall(request)
    for client in clients[1:]:
        time.sleep(0.01)
        client.close()
    answer(clients[0].makefile("rb"))
    clients[0].sendall(request)  # behind all that are still in the queue
    answer(clients[0].makefile("rb"))
    clients[0].sendall(b"GET /v2/models/slow/stats HTTP/1.1\r\n\r\n")
    stats = json.loads(answer(clients[0].makefile("rb"))[2])["model_stats"][0]
    clients[0].close()
    assert stats["execution_count"] < 12  # 13 came


def test_hundreds_of_connections_at_once_are_all_answered(address):
    clients = [socket.create_connection(address, timeout=30) for _ in range(400)]
    for client in clients:
        client.sendall(post())
    assert all(is_right(answer(client.makefile("rb"))[2]) for client in clients)
    for client in clients:
        client.close()
