"""HTTP/2 on the wire: frames in, frames out."""

import contextlib
import socket
import struct
import time

import hpack
import numpy as np
import onnx_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_blocks.serving import Limits, load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class
from keras_blocks.serving.grpc.servicer import Rpc
from keras_blocks.serving.transport import http2_frames as h2

from ..conftest import running_both

SECONDS = 0.4
BODY_LIMIT = 100_000
Request = message_class("ModelInferRequest")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    onnx_files.double(folder / "double" / "1" / "model.onnx")
    onnx_files.slow(folder / "slow" / "1" / "model.onnx")
    limits = Limits(body_bytes=BODY_LIMIT, silent_seconds=SECONDS)
    with running_both(load_repository(folder, threads=1), limits=limits) as (_, address):
        host, _, port = address.partition(":")
        yield host, int(port)


class Client:
    """A client that can do wrong."""

    def __init__(self, address, preface=h2.PREFACE, settings=()):
        self.socket = socket.create_connection(address, timeout=20)
        self.stream = self.socket.makefile("rb")
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.send(preface + (h2.settings(settings) if preface == h2.PREFACE else b""))

    def close(self):
        self.stream.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def headers(self, path=f"/{SERVICE}/ModelInfer", **more):
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
        return self.encoder.encode({**fields, "content-type": "application/grpc", **more}.items())

    def ask(self, stream, rows=((1, 2, 3),), **more):
        """A whole call."""
        self.send(
            h2.frame(h2.HEADERS, h2.END_HEADERS, stream, self.headers(**more))
            + h2.frame(h2.DATA, h2.END_STREAM, stream, message(rows))
        )

    def read(self):
        """The next frame but settings and window updates: kind, flags, stream, payload."""
        while True:
            head = self.stream.read(h2.HEAD_BYTES)
            if len(head) < h2.HEAD_BYTES:
                return None
            high, low, kind, flags, stream = h2.HEAD.unpack(head)
            payload = self.stream.read(high << 8 | low)
            if kind not in (h2.SETTINGS, h2.WINDOW_UPDATE):
                return kind, flags, stream, payload

    def answer(self):
        """Stream, bytes and status of the next call that ends."""
        data, headers = b"", {}
        while (got := self.read()) is not None:
            kind, flags, stream, payload = got
            if kind == h2.HEADERS:
                headers.update(self.decoder.decode(payload))
            elif kind == h2.DATA:
                data += payload
            else:
                raise AssertionError(f"frame {kind}: {payload!r}")
            if flags & h2.END_STREAM:
                return stream, data, headers
        raise AssertionError("the connection ended")

    def end(self):
        """The code with which the connection ends."""
        code = None
        with contextlib.suppress(ConnectionError):
            while (got := self.read()) is not None:
                if got[0] == h2.GOAWAY:
                    code = struct.unpack(">II", got[3][:8])[1]
        return code


@pytest.fixture
def client(address):
    with contextlib.closing(Client(address)) as client:
        yield client


def message(rows):
    array = np.array(rows, dtype="float32")
    request = Request(
        model_name="double",
        inputs=[{"name": "x", "datatype": "FP32", "shape": array.shape}],
        raw_input_contents=[array.tobytes()],
    )
    data = request.SerializeToString()
    return struct.pack(">BI", 0, len(data)) + data


def doubled(data):
    response = message_class("ModelInferResponse").FromString(data[5:])
    return np.frombuffer(response.raw_output_contents[0], dtype="float32").tolist()


def is_right(client, stream=1):
    client.ask(stream)
    number, data, headers = client.answer()
    assert headers["grpc-status"] == "0"
    return number == stream and doubled(data) == [2, 4, 6]


def test_calls_follow_one_another_and_their_headers_become_one_byte_each(client):
    assert all(is_right(client, stream) for stream in (1, 3, 5, 99))


def test_frames_that_come_byte_by_byte_are_read(address):
    with contextlib.closing(Client(address, preface=b"")) as client:
        block = client.headers()
        everything = (
            h2.PREFACE
            + h2.settings([])
            + h2.frame(h2.HEADERS, h2.END_HEADERS, 1, block)
            + h2.frame(h2.DATA, h2.END_STREAM, 1, message([[1, 2, 3]]))
        )
        for byte in everything:
            client.send(bytes([byte]))
        assert doubled(client.answer()[1]) == [2, 4, 6]


def test_headers_and_data_in_pieces_with_padding_and_priority_are_read(client):
    block, data = client.headers(), message([[1, 2, 3]])
    priority = bytes(5)
    first = bytes([3]) + priority + block[:7] + bytes(3)
    client.send(
        h2.frame(h2.HEADERS, h2.PADDED | h2.HAS_PRIORITY, 1, first)
        + h2.frame(h2.CONTINUATION, 0, 1, block[7:9])
        + h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block[9:])
        + h2.frame(h2.PRIORITY, 0, 1, priority)
        + h2.frame(h2.DATA, h2.PADDED, 1, bytes([5]) + data[:3] + bytes(5))
        + h2.frame(h2.DATA, 0, 1, data[3:])
        + h2.frame(h2.DATA, h2.END_STREAM, 1, b"")
    )
    assert doubled(client.answer()[1]) == [2, 4, 6]


def test_a_ping_is_answered_with_its_own_bytes(client):
    client.send(h2.frame(h2.PING, 0, 0, b"12345678"))
    assert client.read() == (h2.PING, h2.ACK, 0, b"12345678")


def test_unknown_frames_are_passed_over(client):
    client.send(h2.frame(77, 0xFF, 0, b"what"))
    assert is_right(client)


def test_an_answer_waits_for_the_window_of_its_stream_and_of_the_connection(address):
    with contextlib.closing(Client(address, settings=[(h2.INITIAL_WINDOW_SIZE, 10)])) as client:
        client.ask(1)
        assert client.read()[0] == h2.HEADERS
        assert len(client.read()[3]) == 10
        client.send(h2.frame(h2.PING, 0, 0, bytes(8)))
        assert client.read()[0] == h2.PING  # and no more data before it
        client.send(h2.window_update(1, 7))
        assert len(client.read()[3]) == 7
        client.send(h2.settings([(h2.INITIAL_WINDOW_SIZE, 1000)]))
        assert client.read()[0] == h2.DATA
        assert client.read()[:2] == (h2.HEADERS, h2.END_HEADERS | h2.END_STREAM)


def test_large_answers_share_the_window_of_the_connection(address):
    rows = np.ones((6000, 3))  # 72 kB; the connection takes 64
    wide = [(h2.INITIAL_WINDOW_SIZE, 10**6)]
    with contextlib.closing(Client(address, settings=wide)) as client:
        client.ask(1, rows)
        received, ended = 0, False
        while not ended:
            kind, flags, _, payload = client.read()
            if kind == h2.DATA:
                assert len(payload) <= 2**14
                received += len(payload)
                if received == 2**16 - 1:
                    client.send(h2.window_update(0, 10**5))
            ended = flags & h2.END_STREAM
        assert received > 72_000


def test_uploads_go_on_for_ever_because_their_bytes_are_given_back(address):
    rows = np.ones((5000, 3))
    size = len(message(rows))
    with contextlib.closing(Client(address)) as client:
        client.send(h2.window_update(0, 2**31 - 2**16))
        client.send(h2.settings([(h2.INITIAL_WINDOW_SIZE, 10**6)]))
        for turn in range(40):  # several times the window
            client.ask(2 * turn + 1, rows)
            assert len(doubled(client.answer()[1])) == 15_000
    assert 40 * size > 4 * BODY_LIMIT + 2**20


BROKEN = {
    "no preface": (b"GET / HTTP/1.1\r\n\r\n", h2.PROTOCOL_ERROR),
    "a huge frame": (b"\xff\xff\xff\0\0\0\0\0\1", h2.FRAME_SIZE_ERROR),
    "data of no stream": (h2.frame(h2.DATA, 0, 1, b"x"), h2.PROTOCOL_ERROR),
    "data of stream 0": (h2.frame(h2.DATA, 0, 0, b"x"), h2.PROTOCOL_ERROR),
    "an even stream": (h2.frame(h2.HEADERS, h2.END_HEADERS, 2, b"\x82"), h2.STREAM_CLOSED),
    "stream 0": (h2.frame(h2.HEADERS, h2.END_HEADERS, 0, b"\x82"), h2.STREAM_CLOSED),
    "a broken header block": (
        h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        h2.COMPRESSION_ERROR,
    ),
    "headers that are interrupted": (
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.PING, 0, 0, bytes(8)),
        h2.PROTOCOL_ERROR,
    ),
    "a continuation of nothing": (h2.frame(h2.CONTINUATION, 0, 1, b""), h2.PROTOCOL_ERROR),
    "headers without end": (
        h2.frame(h2.HEADERS, 0, 1, b"")
        + b"".join(h2.frame(h2.CONTINUATION, 0, 1, bytes(5000)) for _ in range(4)),
        h2.ENHANCE_YOUR_CALM,
    ),
    "continuations of nothing without end": (
        h2.frame(h2.HEADERS, 0, 1, b"") + h2.frame(h2.CONTINUATION, 0, 1, b""),
        h2.ENHANCE_YOUR_CALM,
    ),
    "more padding than payload": (
        h2.frame(h2.HEADERS, h2.END_HEADERS | h2.PADDED, 1, b"\x09\x82"),
        h2.PROTOCOL_ERROR,
    ),
    "a push": (h2.frame(h2.PUSH_PROMISE, 0, 1, bytes(4)), h2.PROTOCOL_ERROR),
    "a short ping": (h2.frame(h2.PING, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
    "half a setting": (h2.frame(h2.SETTINGS, 0, 0, bytes(7)), h2.FRAME_SIZE_ERROR),
    "settings of a stream": (h2.frame(h2.SETTINGS, 0, 1), h2.PROTOCOL_ERROR),
    "a frame size too small": (h2.settings([(h2.MAX_FRAME_SIZE, 5)]), h2.PROTOCOL_ERROR),
    "a window too large": (
        h2.settings([(h2.INITIAL_WINDOW_SIZE, 2**31)]),
        h2.FLOW_CONTROL_ERROR,
    ),
    "window updates that add up": (h2.window_update(0, 2**31 - 1), h2.FLOW_CONTROL_ERROR),
    "a window update of nothing": (h2.window_update(0, 0), h2.PROTOCOL_ERROR),
    "a reset of no stream": (h2.reset(1, h2.CANCEL), h2.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_client_that_breaks_the_protocol_is_told_how_and_let_go(address, case):
    sent, code = BROKEN[case]
    preface = sent if case == "no preface" else h2.PREFACE
    with contextlib.closing(Client(address, preface=preface)) as client:
        with contextlib.suppress(ConnectionError):
            client.send(sent if preface == h2.PREFACE else b"")
        assert client.end() == code
    with contextlib.closing(Client(address)) as other:
        assert is_right(other)


def test_data_behind_the_end_of_a_call_change_nothing(client):
    assert is_right(client)
    client.send(h2.frame(h2.DATA, 0, 1, b"late"))
    assert is_right(client, 3)


def test_data_beyond_the_window_end_the_connection(client):
    client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, client.headers()))
    with contextlib.suppress(ConnectionError):
        client.send(h2.frame(h2.DATA, 0, 1, struct.pack(">BI", 0, BODY_LIMIT)))
        for _ in range(1000):
            client.send(h2.frame(h2.DATA, 0, 1, b""))
        for stream in range(3, 99, 2):  # each within its own window, too much together
            client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, client.headers()))
            client.send(
                h2.frame(h2.DATA, 0, stream, struct.pack(">BI", 0, BODY_LIMIT))
                + h2.frame(h2.DATA, 0, stream, bytes(BODY_LIMIT - 1))
            )
    assert client.end() == h2.FLOW_CONTROL_ERROR


def test_more_streams_than_allowed_are_refused_and_the_others_go_on(client):
    count = 600
    block = [client.headers() for _ in range(count)]
    client.send(
        b"".join(h2.frame(h2.HEADERS, h2.END_HEADERS, 2 * i + 1, block[i]) for i in range(count))
    )
    for _ in range(count - 512):
        kind, _, _, payload = client.read()
        assert (kind, h2.read_number(payload)) == (h2.RST_STREAM, h2.REFUSED_STREAM)
    client.send(h2.frame(h2.DATA, h2.END_STREAM, 1, message([[1, 2, 3]])))
    assert doubled(client.answer()[1]) == [2, 4, 6]


def reset_by_client(number):
    return h2.reset(number, h2.CANCEL)


def reset_by_server(number):
    return h2.window_update(number, h2.LARGEST_WINDOW)  # more than there may be


@pytest.mark.parametrize("given_up", [reset_by_client, reset_by_server])
def test_calls_that_are_opened_and_reset_without_end_end_the_connection(client, given_up):
    numbers = range(1, 40_000, 2)
    opened = (h2.frame(h2.HEADERS, h2.END_HEADERS, n, client.headers()) for n in numbers)
    sent = b"".join(head + given_up(n) for n, head in zip(numbers, opened, strict=True))
    with contextlib.suppress(ConnectionError):
        client.send(sent)  # at once: they are counted within a while
    # The end of a connection whose bytes nobody reads may overtake the frame that says why.
    assert client.end() in (h2.ENHANCE_YOUR_CALM, None)


def test_an_answer_comes_through_windows_of_one_byte(address):
    rows = [[1, 2, 3]] * 20
    with contextlib.closing(Client(address, settings=[(h2.INITIAL_WINDOW_SIZE, 0)])) as client:
        client.ask(1, rows)
        client.ask(3, rows)
        client.send(h2.window_update(1, 1) * 1000)  # more than it needs
        number, data, _ = client.answer()
        assert (number, doubled(data)) == (1, [2, 4, 6] * 20)
        client.send(h2.settings([(h2.INITIAL_WINDOW_SIZE, size) for size in range(1000)]))
        number, data, _ = client.answer()
        assert (number, doubled(data)) == (3, [2, 4, 6] * 20)


def test_a_stream_whose_answers_are_left_lying_is_not_answered_further(address, monkeypatch):
    asked = []
    infer = Rpc.infer
    monkeypatch.setattr(Rpc, "infer", lambda *given: asked.append(1) or infer(*given))
    count = 2000
    calls = f"/{SERVICE}/ModelStreamInfer"
    with contextlib.closing(Client(address, settings=[(h2.INITIAL_WINDOW_SIZE, 0)])) as client:
        opened = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, client.headers(calls))
        client.send(opened + h2.frame(h2.DATA, h2.END_STREAM, 1, bytes(5 * count)))
        client.send(h2.frame(h2.PING, 0, 0, bytes(8)))
        while client.read()[0] != h2.PING:
            pass
        assert 0 < len(asked) < count / 4
        client.send(h2.window_update(0, 2**20) + h2.settings([(h2.INITIAL_WINDOW_SIZE, 2**20)]))
        _, data, headers = client.answer()
    assert (len(asked), headers["grpc-status"]) == (count, "0")
    assert data.count(b"model '' is unknown") == count


def test_a_client_that_takes_nothing_is_let_go(address):
    rows = np.zeros((4000, 3))
    with contextlib.closing(Client(address)) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(h2.window_update(0, 2**30) + h2.settings([(h2.INITIAL_WINDOW_SIZE, 2**30)]))
        with contextlib.suppress(ConnectionError):
            for turn in range(10_000):
                client.ask(2 * turn + 1, rows)
            pytest.fail("it is still there")


def test_a_reset_takes_a_call_out_and_leaves_the_others(client):
    client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, client.headers()))
    client.send(h2.reset(1, h2.CANCEL))
    assert is_right(client, 3)


def test_a_call_that_stops_coming_is_not_waited_for(client):
    client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, client.headers()))
    client.send(h2.frame(h2.DATA, 0, 1, message([[1, 2, 3]])[:9]))
    kind, _, stream, payload = client.read()
    assert (kind, stream, h2.read_number(payload)) == (h2.RST_STREAM, 1, h2.CANCEL)
    assert is_right(client, 3)


def test_a_preface_that_does_not_come_is_not_waited_for(address):
    with contextlib.closing(Client(address, preface=h2.PREFACE[:7])) as client:
        started = time.monotonic()
        client.end()
        assert SECONDS / 2 < time.monotonic() - started < 15


def test_what_is_no_grpc_gets_415(client):
    client.ask(1, **{"content-type": "application/json"})
    _, _, headers = client.answer()
    assert headers[":status"] == "415"


def test_an_early_refusal_tells_the_client_to_stop_sending(client):
    client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, client.headers("/nope")))
    assert client.answer()[2]["grpc-status"] == "12"
    kind, _, _, payload = client.read()
    assert (kind, h2.read_number(payload)) == (h2.RST_STREAM, h2.NO_ERROR)


FRAMES = st.tuples(
    st.integers(0, 12), st.integers(0, 255), st.integers(0, 6), st.binary(max_size=40)
)


@settings(max_examples=60, deadline=None)
@given(sent=st.lists(FRAMES, max_size=12))
def test_no_frames_harm_the_server(address, sent):
    with contextlib.closing(Client(address)) as client, contextlib.suppress(ConnectionError):
        client.send(b"".join(h2.frame(*parts) for parts in sent))
    with contextlib.closing(Client(address)) as other:
        assert is_right(other)


def test_header_blocks_that_change_the_table_are_not_remembered():
    reader, encoder = h2.HeaderReader(), hpack.Encoder()
    one, two = [(":path", "/one"), ("x", "1")], [(":path", "/two"), ("x", "2")]
    for headers in (one, one, two, one, two, two, one):
        block = encoder.encode(headers)
        assert reader.read(block) == {n.encode(): v.encode() for n, v in headers}


def test_blocks_with_literals_that_are_not_to_be_remembered_are_read_once(monkeypatch):
    reader = h2.HeaderReader()
    long = "x" * 300
    block = hpack.Encoder().encode([(":method", "POST")])  # a pointer into the static table
    block += b"\x0f\x0d\x0230"  # content-length: 30, its name a pointer
    block += h2.header_block([("grpc-timeout", "1S"), ("long", long)])
    expected = {
        b":method": b"POST",
        b"content-length": b"30",
        b"grpc-timeout": b"1S",
        b"long": long.encode(),
    }
    assert reader.read(block) == expected
    monkeypatch.setattr(hpack.Decoder, "decode", None)
    assert reader.read(block) == expected


def test_blocks_that_are_read_once_are_forgotten_when_the_table_changes():
    reader, encoder = h2.HeaderReader(), hpack.Encoder()
    adds = encoder.encode([("x", "1")])
    points = encoder.encode([("x", "1")])  # to the newest entry of the table
    assert [reader.read(block)[b"x"] for block in (adds, points, points)] == [b"1"] * 3
    assert reader.read(encoder.encode([("y", "2")])) == {b"y": b"2"}
    assert reader.read(points) == {b"y": b"2"}


def test_a_client_cannot_fill_the_memory_with_blocks_that_are_read_once():
    reader = h2.HeaderReader()
    for count in range(1000):
        reader.read(h2.header_block([("n", str(count))]))
    assert len(reader._known) <= 64


def test_long_header_values_are_written_as_hpack_reads_them():
    for size in (0, 126, 127, 128, 254, 255, 1000, 20_000):
        block = h2.header_block([("grpc-message", "x" * size)])
        assert hpack.Decoder(max_header_list_size=10**6).decode(block) == [
            ("grpc-message", "x" * size)
        ]
