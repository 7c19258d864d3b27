"""The gRPC service, asked by gRPC's own client."""

import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import onnx_files
import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_blocks.serving import BatchSettings, Limits, load_repository
from keras_blocks.serving.grpc.messages import SERVICE, message_class

from ..conftest import running_both
from ..rest.test_extensions import DTYPES

BODY_LIMIT = 200_000
Code = grpc.StatusCode
Request = message_class("ModelInferRequest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name in ("double", "add_bias", "row_sums", "tree", "gather", "expand", "slow"):
        getattr(onnx_files, name)(folder / name / "1" / "model.onnx")
    for datatype, (kind, _, _) in DTYPES.items():
        onnx_files.identity(folder / datatype / "1" / "model.onnx", kind)
    return folder


@pytest.fixture(scope="module")
def channel(folder):
    limits = Limits(body_bytes=BODY_LIMIT, padded_steps=1000)
    settings = BatchSettings(runs_at_once=1, max_queue_size=300)
    repository = load_repository(folder, threads=1)
    with (
        running_both(repository, limits=limits, settings=settings) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        yield channel


def call(channel, method, request=None, *, service=SERVICE, **kwargs):
    """The response, and the call."""
    name = f"{method}Request" if method != "ModelInfer" else "ModelInferRequest"
    stub = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_class(f"{method}Response").FromString,
    )
    request = message_class(name)(**request) if isinstance(request, dict) else request
    return stub(request or message_class(name)(), timeout=kwargs.pop("timeout", 30), **kwargs)


def tensor(name, datatype, shape, contents=None):
    given = {"contents": contents} if contents else {}
    return {"name": name, "datatype": datatype, "shape": shape, **given}


def x(*rows):
    array = np.array(rows, dtype="float32")
    return Request(
        model_name="double",
        inputs=[tensor("x", "FP32", array.shape)],
        raw_input_contents=[array.tobytes()],
    )


def doubled(response):
    return np.frombuffer(response.raw_output_contents[0], dtype="float32").tolist()


def refusal(channel, request, **kwargs):
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, "ModelInfer", request, **kwargs)
    return caught.value.code(), caught.value.details()


def test_the_server_and_its_models_are_live_ready_and_described(channel):
    assert call(channel, "ServerLive").live
    assert call(channel, "ServerReady").ready
    assert call(channel, "ModelReady", {"name": "double"}).ready
    assert not call(channel, "ModelReady", {"name": "nope"}).ready
    assert call(channel, "ServerMetadata").name == "keras-blocks"
    metadata = call(channel, "ModelMetadata", {"name": "row_sums"})
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [
        ("x", "INT32", [-1]),
        ("x.row_splits", "INT64", [-1]),
    ]
    config = call(channel, "ModelConfig", {"name": "double", "version": "1"}).config
    assert (config.max_batch_size, config.input[0].data_type) == (64, 11)  # TYPE_FP32
    names = [model.name for model in call(channel, "RepositoryIndex").models]
    assert names == sorted(names)


def test_the_health_service_of_grpc_answers(channel):
    health = "grpc.health.v1.Health"
    stub = channel.unary_unary(f"/{health}/Check")
    assert stub(b"") == b"\x08\x01"
    with pytest.raises(grpc.RpcError) as caught:
        stub(message_class("HealthCheckRequest")(service="other").SerializeToString())
    assert caught.value.code() == Code.NOT_FOUND


def test_a_request_is_answered_with_its_id(channel):
    request = x([1, 2, 3], [4, 5, 6.5])
    request.id = "a7"
    response = call(channel, "ModelInfer", request)
    assert (response.model_name, response.model_version, response.id) == ("double", "1", "a7")
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("y", "FP32", [2, 3])
    assert doubled(response) == [2, 4, 6, 8, 10, 13]


CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_comes_raw_and_typed(channel, datatype):
    _, raw, data = DTYPES[datatype]
    bare = {"model_name": datatype, "inputs": [tensor("x", datatype, [2])]}
    response = call(channel, "ModelInfer", {**bare, "raw_input_contents": [raw]})
    assert list(response.raw_output_contents) == [raw]
    if datatype in CONTENTS:
        typed = [item.encode() for item in data] if datatype == "BYTES" else data
        contents = {CONTENTS[datatype]: typed}
        request = {"model_name": datatype, "inputs": [tensor("x", datatype, [2], contents)]}
        assert list(call(channel, "ModelInfer", request).raw_output_contents) == [raw]


def test_only_the_asked_outputs_come_in_the_asked_order(channel):
    inputs = [
        tensor("x", "FP32", [1, 2], {"fp32_contents": [1, 2]}),
        tensor("bias", "FP32", [1, 1], {"fp32_contents": [10]}),
    ]
    request = {
        "model_name": "add_bias",
        "inputs": inputs,
        "outputs": [{"name": "minus_x"}, {"name": "y"}],
    }
    response = call(channel, "ModelInfer", request)
    assert [output.name for output in response.outputs] == ["minus_x", "y"]
    assert struct.unpack("<2f", response.raw_output_contents[0]) == (-1, -2)


INT_X = {"model_name": "row_sums"}
BAD = {
    "an unknown model": (Request(model_name="nope"), Code.NOT_FOUND, "'nope'"),
    "an unknown version": (
        Request(model_name="double", model_version="9"),
        Code.NOT_FOUND,
        "no version '9'",
    ),
    "no inputs": (Request(model_name="double"), Code.INVALID_ARGUMENT, "'x' is missing"),
    "too few bytes": (
        Request(
            model_name="double",
            inputs=[tensor("x", "FP32", [1, 3])],
            raw_input_contents=[bytes(8)],
        ),
        Code.INVALID_ARGUMENT,
        "8 bytes came",
    ),
    "more raw contents than inputs": (
        Request(
            model_name="double",
            inputs=[tensor("x", "FP32", [1, 3])],
            raw_input_contents=[bytes(12)] * 2,
        ),
        Code.INVALID_ARGUMENT,
        "2 raw_input_contents",
    ),
    "no contents": (
        Request(model_name="double", inputs=[tensor("x", "FP32", [1, 3])]),
        Code.INVALID_ARGUMENT,
        "'x'",
    ),
    "contents of another type": (
        Request(
            model_name="double",
            inputs=[tensor("x", "FP32", [1, 3], {"fp64_contents": [1, 2, 3]})],
        ),
        Code.INVALID_ARGUMENT,
        "fp64_contents",
    ),
    "another datatype": (
        Request(
            model_name="double",
            inputs=[tensor("x", "INT32", [1, 3], {"int_contents": [1, 2, 3]})],
        ),
        Code.INVALID_ARGUMENT,
        "'FP32' expected",
    ),
    "a number beyond the range": (
        Request(model_name="INT8", inputs=[tensor("x", "INT8", [1], {"int_contents": [128]})]),
        Code.INVALID_ARGUMENT,
        "128",
    ),
    "a huge shape": (
        Request(
            model_name="double",
            inputs=[tensor("x", "FP32", [10**12, 3], {"fp32_contents": [1]})],
        ),
        Code.INVALID_ARGUMENT,
        "'x'",
    ),
    "a negative shape": (
        Request(
            model_name="double",
            inputs=[tensor("x", "FP32", [-1, -3], {"fp32_contents": [1, 2, 3]})],
        ),
        Code.INVALID_ARGUMENT,
        "'x'",
    ),
    "an input given twice": (
        Request(model_name="double", inputs=[tensor("x", "FP32", [1, 3])] * 2),
        Code.INVALID_ARGUMENT,
        "twice",
    ),
    "an unknown output": (
        Request(
            model_name="double",
            inputs=[tensor("x", "FP32", [1, 3], {"fp32_contents": [1, 2, 3]})],
            outputs=[{"name": "z"}],
        ),
        Code.INVALID_ARGUMENT,
        "output 'z'",
    ),
    "an index outside": (
        Request(model_name="gather", inputs=[tensor("x", "INT64", [1], {"int64_contents": [7]})]),
        Code.INVALID_ARGUMENT,
        "Gather",
    ),
    "more memory than there is": (
        Request(
            model_name="expand",
            inputs=[tensor("shape", "INT64", [2], {"int64_contents": [10**9, 10**6]})],
        ),
        Code.RESOURCE_EXHAUSTED,
        "memory",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_gets_a_code_and_a_message_that_names_what_is_wrong(channel, case):
    request, code, named = BAD[case]
    got, message = refusal(channel, request)
    assert got == code
    assert named in message


def test_text_beyond_ascii_survives_in_a_message(channel):
    assert "modèle 🌳" in refusal(channel, Request(model_name="modèle 🌳"))[1]


def test_what_is_no_message_gets_invalid_argument(channel):
    stub = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    for bytes_ in (b"\xff" * 20, b"\x0a\x05ab"):
        with pytest.raises(grpc.RpcError) as caught:
            stub(bytes_, timeout=20)
        assert caught.value.code() == Code.INVALID_ARGUMENT


def test_an_unknown_method_is_unimplemented(channel):
    for path in (f"/{SERVICE}/Nope", "/x/y"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path)(b"", timeout=20)
        assert caught.value.code() == Code.UNIMPLEMENTED


def test_a_message_over_the_limit_is_refused_and_the_channel_goes_on(channel):
    rows = np.zeros((BODY_LIMIT // 12 + 1, 3))
    assert refusal(channel, x(*rows))[0] == Code.RESOURCE_EXHAUSTED
    assert doubled(call(channel, "ModelInfer", x([1, 2, 3]))) == [2, 4, 6]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_message_is_read_up_to_the_limit_of_what_it_holds(channel, compression):
    response = call(channel, "ModelInfer", x([1, 2, 3]), compression=compression)
    assert doubled(response) == [2, 4, 6]
    rows = np.zeros((BODY_LIMIT // 12 + 1, 3))
    assert refusal(channel, x(*rows), compression=compression)[0] == Code.RESOURCE_EXHAUSTED


def test_messages_of_many_frames_go_both_ways(channel):
    rows = np.random.default_rng(0).normal(size=(15_000, 3)).astype("float32")
    response = call(channel, "ModelInfer", x(*rows))
    assert np.array_equal(doubled(response), 2 * rows.reshape(-1))


def test_a_call_is_told_when_its_time_is_over_and_leaves_the_queue(channel):
    slow = Request(
        model_name="slow", inputs=[tensor("steps", "INT64", [1], {"int64_contents": [3000]})]
    )
    stub = channel.unary_unary(
        f"/{SERVICE}/ModelInfer", request_serializer=Request.SerializeToString
    )
    running = stub.future(slow, timeout=60)
    waiting = [stub.future(slow, timeout=60) for _ in range(5)]
    assert refusal(channel, slow, timeout=0.3)[0] == Code.DEADLINE_EXCEEDED
    slow.parameters["timeout"].int64_param = 100_000  # microseconds
    assert refusal(channel, slow)[0] == Code.DEADLINE_EXCEEDED
    for future in waiting:
        future.cancel()
    running.result()
    (counts,) = call(channel, "ModelStatistics", {"name": "slow"}).model_stats
    assert counts.execution_count <= 3


def test_hundreds_of_calls_at_once_on_one_channel_each_get_their_own_answer(channel):
    def ask(index):
        return doubled(call(channel, "ModelInfer", x([index, index + 0.5, -index])))

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, range(400)))
    assert answers == [[2 * i, 2 * i + 1, -2 * i] for i in range(400)]


def test_a_stream_answers_in_order_the_bad_ones_too(channel):
    def requests():
        for index in range(50):
            request = x([index, 0, 0]) if index % 10 else Request(model_name="nope")
            request.id = str(index)
            yield request

    stub = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        request_serializer=Request.SerializeToString,
        response_deserializer=message_class("ModelStreamInferResponse").FromString,
    )
    responses = list(stub(requests(), timeout=30))
    assert len(responses) == 50
    for index, response in enumerate(responses):
        if index % 10:
            assert response.infer_response.id == str(index)
            assert doubled(response.infer_response)[0] == 2 * index
        else:
            assert "'nope'" in response.error_message


def test_a_stream_may_send_more_than_fits_its_window_at_once(channel):
    rows = np.ones((10_000, 3))  # 120 kB; the window holds some ten of them
    stub = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        request_serializer=Request.SerializeToString,
        response_deserializer=message_class("ModelStreamInferResponse").FromString,
    )
    responses = stub((x(*rows) for _ in range(40)), timeout=30)
    assert sum(len(doubled(response.infer_response)) for response in responses) == 40 * 30_000


def test_a_stream_stays_open_between_its_messages(channel):
    go_on = threading.Event()

    def requests():
        yield x([1, 2, 3])
        assert go_on.wait(20)
        yield x([4, 5, 6])

    stub = channel.stream_stream(
        f"/{SERVICE}/ModelStreamInfer",
        request_serializer=Request.SerializeToString,
        response_deserializer=message_class("ModelStreamInferResponse").FromString,
    )
    responses = stub(requests(), timeout=30)
    assert doubled(next(responses).infer_response) == [2, 4, 6]
    go_on.set()
    assert doubled(next(responses).infer_response) == [8, 10, 12]
    assert list(responses) == []


def test_overload_is_resource_exhausted_at_once(folder):
    repository = load_repository(folder, threads=1)
    settings = BatchSettings(runs_at_once=1, max_queue_size=1)
    slow = Request(
        model_name="slow", inputs=[tensor("steps", "INT64", [1], {"int64_contents": [1500]})]
    )
    with (
        running_both(repository, settings=settings) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        stub = channel.unary_unary(
            f"/{SERVICE}/ModelInfer", request_serializer=Request.SerializeToString
        )
        futures = [stub.future(slow, timeout=60) for _ in range(6)]
        codes = [future.code() for future in futures]
    answered = codes.count(Code.OK)
    assert answered in (1, 2)  # whether the first one had begun before the second came
    assert codes.count(Code.RESOURCE_EXHAUSTED) == 6 - answered


def test_models_are_unloaded_and_loaded(tmp_path):
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    with (
        running_both(load_repository(tmp_path)) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        name = {"model_name": "double"}
        call(channel, "RepositoryModelUnload", name)
        assert refusal(channel, x([1, 2, 3]))[0] == Code.NOT_FOUND
        index = call(channel, "RepositoryIndex").models
        assert [(m.name, m.state) for m in index] == [("double", "UNAVAILABLE")]
        call(channel, "RepositoryModelLoad", name)
        assert doubled(call(channel, "ModelInfer", x([1, 2, 3]))) == [2, 4, 6]
        with pytest.raises(grpc.RpcError) as caught:
            call(channel, "RepositoryModelLoad", {"model_name": "../etc"})
        assert caught.value.code() == Code.NOT_FOUND
        stats = MessageToDict(call(channel, "ModelStatistics"))["modelStats"][0]
        assert stats["inferenceCount"] == "1"


# Anything at all

ALLOWED = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND}
MUTATIONS = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "bias", "x.row_splits", ""])},
    optional={
        "datatype": st.sampled_from([*DTYPES, "X"]),
        "shape": st.lists(st.integers(-1, 4) | st.just(2**40), max_size=3),
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "int_contents": st.lists(st.integers(-300, 300), max_size=4),
                "fp32_contents": st.lists(st.floats(width=32), max_size=4),
                "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
            },
        ),
    },
)


@settings(max_examples=150, deadline=None)
@given(
    model=st.sampled_from(["double", "add_bias", "row_sums", "BYTES", "INT8", "nope"]),
    inputs=st.lists(MUTATIONS, max_size=3),
    raw=st.lists(st.binary(max_size=16), max_size=3),
    cut=st.integers(0, 8),
)
def test_no_message_gives_an_internal_error(channel, model, inputs, raw, cut):
    message = Request(model_name=model, inputs=inputs, raw_input_contents=raw)
    data = message.SerializeToString()
    future = channel.unary_unary(f"/{SERVICE}/ModelInfer").future(data[: len(data) - cut])
    assert future.code() in ALLOWED, future.details()
