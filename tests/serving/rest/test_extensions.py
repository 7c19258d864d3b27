"""What Triton's extensions add to the REST protocol, and ragged tensors as lists of rows."""

import json
import shutil
import struct

import httpx
import numpy as np
import onnx
import onnx_files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from keras_blocks.serving import load_repository
from keras_blocks.serving.inference.statistics import ModelStatistics

from ..conftest import running

BITS = 0x3FC0  # 1.5 as bfloat16
# datatype -> ONNX type, raw bytes of two elements, the same elements in JSON
DTYPES = {
    "BOOL": (TensorProto.BOOL, struct.pack("<2?", True, False), [True, False]),
    "INT8": (TensorProto.INT8, struct.pack("<2b", -128, 127), [-128, 127]),
    "INT16": (TensorProto.INT16, struct.pack("<2h", -(2**15), 1), [-(2**15), 1]),
    "INT32": (TensorProto.INT32, struct.pack("<2i", -(2**31), 1), [-(2**31), 1]),
    "INT64": (TensorProto.INT64, struct.pack("<2q", -(2**63), 1), [-(2**63), 1]),
    "UINT8": (TensorProto.UINT8, struct.pack("<2B", 255, 1), [255, 1]),
    "UINT16": (TensorProto.UINT16, struct.pack("<2H", 65535, 1), [65535, 1]),
    "UINT32": (TensorProto.UINT32, struct.pack("<2I", 2**32 - 1, 1), [2**32 - 1, 1]),
    "UINT64": (TensorProto.UINT64, struct.pack("<2Q", 2**64 - 1, 1), [2**64 - 1, 1]),
    "FP16": (TensorProto.FLOAT16, struct.pack("<2e", 1.5, -2), [1.5, -2]),
    "BF16": (TensorProto.BFLOAT16, struct.pack("<2H", BITS, BITS | 0x8000), [1.5, -1.5]),
    "FP32": (TensorProto.FLOAT, struct.pack("<2f", 1.5, -2), [1.5, -2]),
    "FP64": (TensorProto.DOUBLE, struct.pack("<2d", 0.1, -2), [0.1, -2]),
    "BYTES": (TensorProto.STRING, b"\2\0\0\0\xc3\xa9\0\0\0\0", ["é", ""]),
}


@pytest.fixture(scope="module")
def identities(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for datatype, (kind, _, _) in DTYPES.items():
        onnx_files.identity(folder / datatype / "1" / "model.onnx", kind)
    with running(load_repository(folder, threads=1)) as url, httpx.Client(base_url=url) as it:
        yield it


def binary(name, datatype, shape, raw):
    parameters = {"binary_data_size": len(raw)}
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": parameters}


def plain(name, datatype, shape, data):
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def post(client, model, body, raw=b"", path="infer"):
    head = json.dumps(body).encode()
    headers = {"content-type": "application/octet-stream"}
    headers["inference-header-content-length"] = str(len(head))
    return client.post(f"/v2/models/{model}/{path}", content=head + raw, headers=headers)


def parts(response):
    """The JSON of an answer, and the raw bytes of each binary output."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get("inference-header-content-length", len(response.content)))
    body, rest, raw = json.loads(response.content[:length]), response.content[length:], {}
    for output in body["outputs"]:
        if "parameters" in output:
            size = output["parameters"]["binary_data_size"]
            raw[output["name"]], rest = rest[:size], rest[size:]
    assert rest == b""
    return body, raw


# Binary tensors


@pytest.mark.parametrize("datatype", DTYPES)
def test_every_datatype_goes_in_and_out_binary_and_as_json(identities, datatype):
    _, raw, data = DTYPES[datatype]
    asked = {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    in_json = {"inputs": [plain("x", datatype, [2], data)]}
    in_bytes = {"inputs": [binary("x", datatype, [2], raw)]}
    for body, behind in ((in_json, b""), (in_bytes, raw)):
        answer, none = parts(post(identities, datatype, body, behind))
        assert (answer["outputs"], none) == ([plain("y", datatype, [2], data)], {})
        answer, given = parts(post(identities, datatype, {**body, **asked}, behind))
        assert given == {"y": raw}
        assert answer["outputs"] == [binary("y", datatype, [2], raw)]


def test_binary_and_json_tensors_mix_in_both_directions(client):
    bias = struct.pack("<2f", 10, 20)
    body = {
        "id": "7",
        "inputs": [
            plain("x", "FP32", [2, 2], [1, 2, 3, 4]),
            binary("bias", "FP32", [2, 1], bias),
        ],
        "outputs": [{"name": "minus_x", "parameters": {"binary_data": True}}, {"name": "y"}],
    }
    answer, raw = parts(post(client, "add_bias", body, bias))
    assert answer["id"] == "7"
    assert struct.unpack("<4f", raw["minus_x"]) == (-1, -2, -3, -4)
    assert answer["outputs"][1] == plain("y", "FP32", [2, 2], [11.0, 12.0, 23.0, 24.0])


def test_all_outputs_are_binary_where_the_request_says_so(client):
    inputs = [plain("x", "FP32", [1, 2], [1, 2]), plain("bias", "FP32", [1, 1], [10])]
    body = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    assert set(parts(post(client, "add_bias", body))[1]) == {"y", "minus_x"}
    body["outputs"] = [{"name": "y", "parameters": {"binary_data": False}}, {"name": "minus_x"}]
    assert set(parts(post(client, "add_bias", body))[1]) == {"minus_x"}


def test_an_empty_tensor_is_no_bytes(client):
    answer, raw = parts(
        post(
            client,
            "double",
            {
                "inputs": [binary("x", "FP32", [0, 3], b"")],
                "parameters": {"binary_data_output": True},
            },
        )
    )
    assert (answer["outputs"][0]["shape"], raw) == ([0, 3], {"y": b""})


ROW = struct.pack("<3f", 1, 2, 3)
BAD_BINARY = {
    "too few bytes for the shape": (binary("x", "FP32", [1, 3], ROW[:8]), ROW[:8], "'x'"),
    "too many bytes for the shape": (binary("x", "FP32", [1, 3], ROW * 2), ROW * 2, "'x'"),
    "fewer bytes than declared": (binary("x", "FP32", [1, 3], ROW), ROW[:8], "'x'"),
    "bytes left over": (binary("x", "FP32", [1, 3], ROW), ROW + b"1", "1 bytes are left over"),
    "a huge shape": (binary("x", "FP32", [10**12, 3], ROW), ROW, "'x'"),
    "data twice": ({**binary("x", "FP32", [1, 3], ROW), "data": [1, 2, 3]}, ROW, "'x'"),
    "a size that is a string": (
        {**binary("x", "FP32", [1, 3], ROW), "parameters": {"binary_data_size": "12"}},
        ROW,
        "'x'",
    ),
    "a negative size": (
        {**binary("x", "FP32", [1, 3], ROW), "parameters": {"binary_data_size": -1}},
        ROW,
        "'x'",
    ),
    "shared memory": (
        {**binary("x", "FP32", [1, 3], b""), "parameters": {"shared_memory_region": "r"}},
        b"",
        "'x'",
    ),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_bad_binary_data_get_400(client, case):
    tensor, raw, named = BAD_BINARY[case]
    response = post(client, "double", {"inputs": [tensor]}, raw)
    assert response.status_code == 400, response.text
    assert named in response.json()["error"]


@pytest.mark.parametrize("length", ["-1", "1000", "x", "1e1", "99999999999999999999999", "²"])
def test_a_header_length_that_does_not_fit_gets_400(client, length):
    headers = {"inference-header-content-length": length.encode()}
    response = client.post("/v2/models/double/infer", content=b"{}", headers=headers)
    assert response.status_code == 400
    assert "Inference-Header-Content-Length" in response.json()["error"]


BAD_TEXT = [b"\5\0\0\0abc", b"\1\0", b"\1\0\0\0\xff\0\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff"]


@pytest.mark.parametrize("raw", BAD_TEXT, ids=repr)
def test_broken_text_gets_400(identities, raw):
    body = {"inputs": [binary("x", "BYTES", [2], raw)]}
    response = post(identities, "BYTES", body, raw)
    assert response.status_code == 400
    assert "'x'" in response.json()["error"]


def test_a_boolean_is_0_or_1(identities):
    response = post(identities, "BOOL", {"inputs": [binary("x", "BOOL", [2], b"\1\2")]}, b"\1\2")
    assert response.status_code == 400
    assert "element 1 is neither 0 nor 1" in response.json()["error"]


def test_a_number_beyond_bfloat16_is_refused_and_rounding_is_to_the_nearest(identities):
    def data(value):
        return post(identities, "BF16", {"inputs": [plain("x", "BF16", [1], [value])]})

    assert data(1 + 2**-8 + 2**-10).json()["outputs"][0]["data"] == [1 + 2**-7]
    assert data(1 + 2**-8).json()["outputs"][0]["data"] == [1]
    assert data(3.4e38).status_code == 400


# Ragged tensors as lists of rows


def test_a_ragged_input_may_be_a_list_of_rows(client):
    rows = [[1, 2, 3], [], [9]]
    for shape in ({}, {"shape": [3, -1]}, {"shape": [3]}):
        tensor = {"name": "x", "datatype": "INT32", "data": rows, **shape}
        answer = client.post("/v2/models/row_sums/infer", json={"inputs": [tensor]}).json()
        assert answer["outputs"][0]["data"] == [6, 0, 9]


def test_ragged_outputs_are_lists_of_rows_where_that_is_asked_for(client):
    inputs = [
        {"name": "tokens", "datatype": "INT32", "data": [[1, 2, 3], [9]]},
        {"name": "parents", "datatype": "INT32", "data": [[-1, 0, 0], [-1]]},
    ]
    body = {"inputs": inputs, "parameters": {"nested": True}}
    answer = client.post("/v2/models/tree/infer", json=body).json()
    assert answer["outputs"] == [plain("y", "INT32", [2, -1], [[0, 2, 3], [8]])]
    answer = client.post("/v2/models/tree/infer", json={"inputs": inputs}).json()
    assert [output["data"] for output in answer["outputs"]] == [[0, 2, 3, 8], [0, 3, 4]]


BAD_ROWS = {
    "a number among the rows": [[1], 2],
    "rows of lists": [[[1]], [[2]]],
    "a fraction": [[1.5]],
    "an id above the maximum": [[1], [10]],
    "an object": [[{}]],
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_get_400(client, case):
    tensor = {"name": "x", "datatype": "INT32", "data": BAD_ROWS[case]}
    response = client.post("/v2/models/row_sums/infer", json={"inputs": [tensor]})
    assert response.status_code == 400
    assert "'x'" in response.json()["error"]


def test_rows_of_another_number_than_declared_or_another_datatype_get_400(client):
    tensor = {"name": "x", "datatype": "INT32", "data": [[1], [2]]}
    for wrong in ({"shape": [3, -1]}, {"shape": 2}, {"datatype": "INT64"}, {"datatype": None}):
        response = client.post("/v2/models/row_sums/infer", json={"inputs": [{**tensor, **wrong}]})
        assert response.status_code == 400
        assert "'x'" in response.json()["error"]


# Parameters


def test_parameters_that_would_change_the_answer_are_refused(client):
    x = plain("x", "FP32", [1, 3], [1, 2, 3])
    for extra in (
        {"outputs": [{"name": "y", "parameters": {"classification": 2}}]},
        {"parameters": {"timeout": -5}},
        {"parameters": {"timeout": "soon"}},
        {"parameters": {"binary_data_output": 1}},
    ):
        response = post(client, "double", {"inputs": [x], **extra})
        assert response.status_code == 400, extra
    response = post(client, "double", {"inputs": [x], "parameters": {"my_own": 3, "timeout": 0}})
    assert response.status_code == 200


# Configuration and statistics


def test_the_configuration_says_what_is_batched(client):
    config = client.get("/v2/models/add_bias/config").json()
    assert (config["name"], config["max_batch_size"]) == ("add_bias", 64)
    assert config["input"][0] == {"name": "x", "data_type": "TYPE_FP32", "dims": [2]}
    assert [output["name"] for output in config["output"]] == ["y", "minus_x"]
    whole = client.get("/v2/models/column_sums/versions/1/config").json()
    assert whole["max_batch_size"] == 0
    assert whole["input"][0]["dims"] == [-1, -1]
    assert "dynamic_batching" not in whole
    ragged = client.get("/v2/models/row_sums/config").json()
    assert (ragged["max_batch_size"], ragged["input"][1]["dims"]) == (0, [-1])
    assert "dynamic_batching" in ragged


def test_statistics_count_requests_rows_and_runs(models_folder):
    body = {"inputs": [plain("x", "FP32", [2, 3], [1] * 6)]}
    bad = {"inputs": [plain("x", "INT64", [1], [7])]}
    with running(load_repository(models_folder)) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            client.post("/v2/models/double/infer", json=body)
        client.post("/v2/models/gather/infer", json=bad)
        (counts,) = client.get("/v2/models/double/versions/10/stats").json()["model_stats"]
        several = client.get("/v2/models/double/stats").json()["model_stats"]
        every = client.get("/v2/models/stats").json()["model_stats"]
    assert (counts["name"], counts["version"]) == ("double", "10")
    assert (counts["inference_count"], counts["execution_count"]) == (6, 3)
    assert counts["inference_stats"]["success"]["count"] == 3
    assert counts["inference_stats"]["success"]["ns"] >= counts["inference_stats"]["queue"]["ns"]
    assert counts["batch_stats"][0]["batch_size"] == 2
    for computed in (counts["inference_stats"], counts["batch_stats"][0]):  # as perf_analyzer asks
        parts = ("compute_input", "compute_infer", "compute_output")
        assert [computed[part]["count"] for part in parts] == [3, 3, 3]
    assert [c["version"] for c in several] == ["1", "2", "10"]
    failed = {c["name"]: c["inference_stats"]["fail"]["count"] for c in every}
    assert (failed["gather"], failed["double"]) == (1, 0)


def test_large_runs_are_counted_in_classes():
    counts = ModelStatistics()
    for rows in range(1, 5000):
        counts.ran(rows, [0.0], 1.0, 0.5, 0)
    assert sum(spent.count for spent in counts.batches.values()) == 4999
    assert sorted(counts.batches)[255:] == [256, 512, 1024, 2048, 4096, 8192]


# The model repository


@pytest.fixture
def changing(tmp_path):
    """A folder and a client of its server."""
    onnx_files.double(tmp_path / "double" / "1" / "model.onnx")
    onnx_files.log(tmp_path / "log" / "1" / "model.onnx")
    with (
        running(load_repository(tmp_path, threads=1)) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield tmp_path, client


def index(client, **body):
    entries = client.post("/v2/repository/index", json=body).json()
    return {entry["name"]: entry["state"] for entry in entries}


def ask_double(client, version=""):
    body = {"inputs": [plain("x", "FP32", [1, 3], [1, 2, 3])]}
    return client.post(f"/v2/models/double{version}/infer", json=body)


def test_a_model_is_unloaded_and_loaded_again(changing):
    _, client = changing
    assert index(client) == {"double": "READY", "log": "READY"}
    assert client.post("/v2/repository/models/double/unload").status_code == 200
    assert index(client) == {"double": "UNAVAILABLE", "log": "READY"}
    assert index(client, ready=True) == {"log": "READY"}
    assert ask_double(client).status_code == 404
    assert client.get("/v2/models/double/ready").status_code == 404
    assert client.post("/v2/repository/models/double/load", json={}).status_code == 200
    assert ask_double(client).status_code == 200


def test_new_models_and_versions_are_found_by_loading_them(changing):
    folder, client = changing
    onnx_files.double(folder / "double" / "2" / "model.onnx")
    onnx_files.row_sums(folder / "sums" / "1" / "model.onnx")
    assert ask_double(client).json()["model_version"] == "1"
    assert index(client)["sums"] == "UNAVAILABLE"
    for name in ("double", "sums"):
        assert client.post(f"/v2/repository/models/{name}/load").status_code == 200
    assert ask_double(client).json()["model_version"] == "2"
    assert client.get("/v2/models/sums").json()["name"] == "sums"
    shutil.rmtree(folder / "double" / "1")
    assert client.post("/v2/repository/models/double/load").status_code == 200
    assert ask_double(client, "/versions/1").status_code == 404


def test_a_file_that_does_not_load_is_reported_and_the_old_one_goes_on(changing):
    folder, client = changing
    path = folder / "double" / "1" / "model.onnx"
    good = path.read_bytes()
    path.write_bytes(b"nonsense")
    response = client.post("/v2/repository/models/double/load")
    assert response.status_code == 400
    assert "double/1/model.onnx" in response.json()["error"]
    assert ask_double(client).status_code == 200
    path.write_bytes(good)
    assert client.post("/v2/repository/models/double/load").status_code == 200


def test_what_is_not_in_the_folder_cannot_be_loaded(changing):
    folder, client = changing
    onnx_files.double(folder.parent / "elsewhere" / "1" / "model.onnx")
    for name in ("nope", "..%2Felsewhere", "..", ".", "%2Fetc"):
        response = client.post(f"/v2/repository/models/{name}/load")
        assert response.status_code == 404, name
    assert client.post("/v2/repository/models/nope/unload").status_code == 404
    bad = {"parameters": {"config": "{}"}}
    assert client.post("/v2/repository/models/log/load", json=bad).status_code == 400


def test_no_request_is_lost_or_mixed_up_while_models_are_loaded_again(changing):
    folder, client = changing
    other = onnx.load(folder / "double" / "1" / "model.onnx")
    other.graph.node[0].op_type = "Sub"  # x - x in place of x + x
    onnx.save(other, folder / "other.onnx")
    files = [(folder / "double" / "1" / "model.onnx").read_bytes(),
             (folder / "other.onnx").read_bytes()]  # fmt: skip
    import threading

    done, seen, wrong = threading.Event(), set(), []

    def keep_asking():
        with httpx.Client(base_url=client.base_url, timeout=30) as mine:
            while not done.is_set():
                response = ask_double(mine)
                data = response.json().get("outputs", [{}])[0].get("data")
                seen.add(str(data))
                if response.status_code != 200 or data not in ([2, 4, 6], [0, 0, 0]):
                    wrong.append(response.text)

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(12):
        (folder / "double" / "1" / "model.onnx").write_bytes(files[(turn + 1) % 2])
        assert client.post("/v2/repository/models/double/load").status_code == 200
        expected = [[0, 0, 0], [2, 4, 6]][turn % 2]
        assert ask_double(client).json()["outputs"][0]["data"] == expected
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(seen) == 2


def test_floats_survive_the_round_trip_through_json(identities):
    values = np.random.default_rng(0).normal(size=100).astype("float32")
    body = {"inputs": [plain("x", "FP32", [100], values.astype(float).tolist())]}
    answer = post(identities, "FP32", body).json()["outputs"][0]["data"]
    assert np.array_equal(np.array(answer, dtype="float32"), values)


# Anything at all


PARAMETERS = st.dictionaries(
    st.sampled_from(["binary_data_size", "binary_data", "binary_data_output", "nested", "timeout"]),
    st.none() | st.booleans() | st.integers(-5, 40) | st.text(max_size=3),
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "bias", "tokens", "x.row_splits", "y"]),
        "datatype": st.sampled_from([*DTYPES, "X", None]),
        "shape": st.lists(st.integers(-1, 4) | st.just(2**40), max_size=3) | st.none(),
        "data": st.lists(st.integers(-3, 12) | st.lists(st.integers(0, 9), max_size=3), max_size=4),
        "parameters": PARAMETERS,
    },
)


@settings(max_examples=200, deadline=None)
@given(
    model=st.sampled_from(["double", "add_bias", "row_sums", "tree"]),
    inputs=st.lists(TENSORS, max_size=3),
    outputs=st.lists(TENSORS, max_size=2),
    parameters=PARAMETERS,
    raw=st.binary(max_size=40),
    shift=st.integers(-3, 3),
)
def test_no_binary_request_gives_a_5xx(client, model, inputs, outputs, parameters, raw, shift):
    head = json.dumps({"inputs": inputs, "outputs": outputs, "parameters": parameters}).encode()
    headers = {"inference-header-content-length": str(len(head) + shift)}
    response = client.post(f"/v2/models/{model}/infer", content=head + raw, headers=headers)
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]
