"""What users may rightly expect to be taken."""

import json

import httpx
import numpy as np
import onnx
import onnx_files
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from keras_blocks.cli.main import main
from keras_blocks.errors import ModelLoadError
from keras_blocks.serving import Client, Model, load_repository
from keras_blocks.serving.inference.batch_check import checked_batch_plan

from .conftest import running

# Dims


def sums(path, first, second):
    """y = the sum of a plus the sum of b, each of one free dim."""
    node = onnx_files.node
    return onnx_files.save(
        path,
        [
            node("ReduceSum", ["a"], ["all_a"], keepdims=1),
            node("ReduceSum", ["b"], ["all_b"], keepdims=1),
            node("Add", ["all_a", "all_b"], ["y"]),
        ],
        [
            onnx_files.tensor("a", TensorProto.FLOAT, [first]),
            onnx_files.tensor("b", TensorProto.FLOAT, [second]),
        ],
        [onnx_files.tensor("y", TensorProto.FLOAT, [1])],
    )


@pytest.mark.parametrize("name", ["None", "?", "unk__1", "-1", "unknown", "dynamic_axes_2", "N/A"])
def test_dims_that_share_a_name_that_says_nothing_may_differ(name, tmp_path):
    model = Model.load(sums(tmp_path / "model.onnx", name, name))
    assert model.predict({"a": [1, 2, 3], "b": [4]})["y"].tolist() == [10]
    assert checked_batch_plan(model) is None


@pytest.mark.parametrize("name", ["batch", "N", "nonempty", "s0", "unkempt"])
def test_dims_that_share_a_name_must_agree(name, tmp_path):
    model = Model.load(sums(tmp_path / "model.onnx", name, name))
    with pytest.raises(ValueError, match=f"{name} = 3"):
        model.predict({"a": [1, 2, 3], "b": [4]})


def test_rows_of_one_input_are_batched_whatever_their_name(tmp_path):
    shape = ("unk__7", 3)
    path = onnx_files.identity(tmp_path / "model.onnx", TensorProto.FLOAT, shape)
    assert checked_batch_plan(Model.load(path)) is not None


# Numbers that JSON has no spelling of, and text


FLOATS = [float("nan"), float("inf"), float("-inf"), 1.5]
KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "text": TensorProto.STRING,
    "int64": TensorProto.INT64,
}
DATATYPES = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "float64": "FP64"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, kind in KINDS.items():
        onnx_files.identity(folder / name / "1" / "model.onnx", kind)
    return folder


@pytest.fixture(scope="module")
def url(folder):
    with running(load_repository(folder, threads=1)) as url:
        yield url


@pytest.mark.parametrize("kind", DATATYPES)
@pytest.mark.parametrize(
    "spelled", ['"NaN", "Infinity", "-Infinity", 1.5', "NaN, Infinity, -Infinity, 1.5"]
)
def test_what_is_not_finite_is_read_in_both_spellings_and_answered_in_ours(url, kind, spelled):
    head = f'{{"inputs": [{{"name": "x", "datatype": "{DATATYPES[kind]}", "shape": [4], "data": ['
    response = httpx.post(f"{url}/v2/models/{kind}/infer", content=f"{head}{spelled}]}}]}}")
    assert response.status_code == 200, response.text
    assert response.json()["outputs"][0]["data"] == ["NaN", "Infinity", "-Infinity", 1.5]


def test_what_is_no_number_is_still_none(url):
    for kind, value in (("float32", "nan"), ("float32", "1.5"), ("int64", "NaN"), ("int64", "x")):
        datatype = {"float32": "FP32", "int64": "INT64"}[kind]
        tensor = {"name": "x", "datatype": datatype, "shape": [1], "data": [value]}
        response = httpx.post(f"{url}/v2/models/{kind}/infer", json={"inputs": [tensor]})
        assert response.status_code == 400, value
    broken = httpx.post(f"{url}/v2/models/int64/infer", content='{"inputs": NaN, }')
    assert (broken.status_code, "not valid JSON" in broken.text) == (400, True)


def test_predict_and_the_client_read_what_they_write(url, folder, tmp_path):
    (tmp_path / "in.json").write_text(json.dumps({"x": ["NaN", "-Infinity", 2.5]}))
    for where in (folder / "float32/1/model.onnx", f"{url}/v2/models/float32"):
        out = CliRunner().invoke(main, ["predict", str(where), str(tmp_path / "in.json"), "--json"])
        assert json.loads(out.output) == {"y": ["NaN", "-Infinity", 2.5]}, out.output
    with Client(url) as client:
        assert np.array_equal(
            client.infer("float32", {"x": FLOATS})["y"], np.float32(FLOATS), equal_nan=True
        )


@pytest.mark.parametrize(
    "texts",
    [
        np.array([b"gr\xc3\xbcn", b"rot"], dtype=object),
        np.array(["grün", b"rot"], dtype=object),
        np.array([b"gr\xc3\xbcn", b"rot"]),
    ],
    ids=["objects", "a mixture", "numpy's bytes"],
)
def test_text_may_be_given_as_bytes(url, folder, texts):
    with Client(url) as client:
        assert client.infer("text", {"x": texts})["y"].tolist() == ["grün", "rot"]
        with pytest.raises(ValueError, match="text in UTF-8 expected"):
            client.infer("text", {"x": np.array([b"\xff"], dtype=object)})


# Links


def test_links_out_of_the_repository_are_followed_where_that_is_allowed(tmp_path):
    blobs, models = tmp_path / "blobs", tmp_path / "models" / "m" / "1"
    onnx_files.save(
        blobs / "model",
        [onnx_files.node("Gather", ["table", "x"], ["y"])],
        [onnx_files.tensor("x", TensorProto.INT64, ["n"])],
        [onnx_files.tensor("y", TensorProto.FLOAT, ["n"])],
        [onnx.numpy_helper.from_array(np.arange(2000, dtype="float32"), "table")],
    )
    made = onnx.load(blobs / "model")
    onnx.save(made, blobs / "model", save_as_external_data=True, location="w.data")
    (blobs / "w.data").rename(blobs / "abc")
    models.mkdir(parents=True)
    (models / "model.onnx").symlink_to("../../../blobs/model")
    (models / "w.data").symlink_to("../../../blobs/abc")
    with pytest.raises(ModelLoadError, match=r"link out of .*--allow-links"):
        load_repository(tmp_path / "models")
    model = load_repository(tmp_path / "models", links=True).get("m")
    assert model.predict([1999])["y"].tolist() == [1999]
    assert Model.load(models / "model.onnx").predict([7])["y"].tolist() == [7]


# Classifiers of scikit-learn


def classifier(path, labels=True):
    """scores -> a label, and the scores as dicts."""
    nodes = [
        helper.make_node("ZipMap", ["x"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
    ]
    zipped = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
    )
    outputs = [helper.make_value_info("z", helper.make_sequence_type_proto(zipped))]
    if labels:
        nodes.append(helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0))
        outputs.append(onnx_files.tensor("label", TensorProto.INT64, ["n"]))
    inputs = [onnx_files.tensor("x", TensorProto.FLOAT, ["n", 2])]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


def test_the_labels_of_a_classifier_with_dicts_are_served_and_the_dicts_told(tmp_path, caplog):
    model = Model.load(classifier(tmp_path / "model.onnx"))
    assert model.predict([[0.1, 0.9], [0.8, 0.2]])["label"].tolist() == [1, 0]
    (told,) = caplog.messages
    assert "'z' is seq(map(int64,tensor(float)))" in told
    assert "zipmap=False" in told


def test_a_classifier_with_nothing_but_dicts_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ModelLoadError, match="zipmap=False"):
        Model.load(classifier(tmp_path / "model.onnx", labels=False))
