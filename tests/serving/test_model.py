import json

import numpy as np
import onnx
import onnx_files
import pytest
from onnx import TensorProto, numpy_helper

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.dtypes import PROTOCOL, numpy_dtype
from keras_blocks.contract.example import example_inputs
from keras_blocks.contract.rows import split_rows
from keras_blocks.errors import ContractError, ModelLoadError
from keras_blocks.serving import Model, RunError
from keras_blocks.serving.protocol.example_requests import example_request

KINDS = {
    "bool": onnx.TensorProto.BOOL,
    "string": onnx.TensorProto.STRING,
    **{n: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(n)) for n in PROTOCOL if n[-1].isdigit()},
}
VALUES = {"bool": [True, False], "string": ["a", "é\0"]}


@pytest.fixture(scope="module")
def row_sums(repository):
    return repository.get("row_sums")


@pytest.mark.parametrize("dtype", PROTOCOL)
def test_every_dtype_goes_in_and_comes_out(tmp_path, dtype):
    model = Model.load(onnx_files.identity(tmp_path / "x.onnx", KINDS[dtype]))
    values = VALUES.get(dtype, [0, 1])
    assert model.contract.inputs == (TensorSpec("x", dtype, ("batch",)),)
    result = model.predict({"x": values})["y"]
    assert result.dtype == ("float32" if dtype == "bfloat16" else numpy_dtype(dtype))
    assert result.tolist() == values


def test_ragged_input_is_a_list_of_rows_or_values_with_row_splits(row_sums):
    expected = [6, 0, 9]
    splits = np.array([0, 3, 3, 4])
    for x in (
        {"x": [[1, 2, 3], [], [9]]},
        {"x": [np.array([1, 2, 3]), np.array([], int), np.array([9], "uint8")]},
        {"x": ([1, 2, 3], (), [9])},
        {"x": np.array([1, 2, 3, 9]), "x.row_splits": splits},
        {"x": [1, 2, 3, 9], "x.row_splits": splits.astype("int32")},
        {"x": [1, 2, 3, 9], "x.row_splits": splits.tolist()},
    ):
        assert row_sums.predict(x)["y"].tolist() == expected


def test_the_one_input_of_a_model_needs_no_name(row_sums, repository):
    assert row_sums.predict([[1, 2], [3]])["y"].tolist() == [3, 3]
    with pytest.raises(ContractError, match=r"type list, a mapping .*\['tokens', 'parents'\]"):
        repository.get("tree").predict([[1]])


def test_ragged_input_may_have_no_rows_or_equal_rows(row_sums):
    assert row_sums.predict({"x": []})["y"].tolist() == []
    assert row_sums.predict({"x": [[], []]})["y"].tolist() == [0, 0]
    assert row_sums.predict({"x": np.array([[1, 2], [3, 4]])})["y"].tolist() == [3, 7]


def test_ragged_output_splits_into_the_rows_it_was_made_of(repository):
    model = repository.get("tree")
    result = model.predict({"tokens": [[5, 6], [], [7]], "parents": [[-1, 0], [], [-1]]})
    rows = split_rows(result["y"], result["y.row_splits"])
    assert [row.tolist() for row in rows] == [[4, 6], [], [6]]


@pytest.mark.parametrize(
    "rows",
    [
        3,
        "12",
        [1, 2],
        [[1], 2],
        [[[1]], [[2]]],
        [["a"]],
        [[1.5]],
        [[1], None],
        {"a": 1},
        [np.array(3)],
    ],
)
def test_what_is_no_list_of_rows_is_refused_by_name(row_sums, rows):
    with pytest.raises(ContractError, match="input 'x'") as raised:
        row_sums.predict({"x": rows})
    assert raised.value.input_name == "x"


def test_a_graph_without_a_contract_gets_one_from_its_inputs(tmp_path):
    model = Model.load(onnx_files.add_bias(tmp_path / "m.onnx"))
    assert model.contract == Contract(
        (TensorSpec("x", "float32", ("batch", 2)), TensorSpec("bias", "float32", ("batch", 1))),
        (
            TensorSpec("y", "float32", ("batch", 2)),
            TensorSpec("minus_x", "float32", ("batch", 2)),
        ),
    )
    assert not model.brings_contract
    assert model.predict({"x": [[1, 2]], "bias": [[3]]}, ["y"])["y"].tolist() == [[4, 5]]


def test_a_nameless_dim_is_free_on_its_own(tmp_path):
    model = Model.load(onnx_files.identity(tmp_path / "m.onnx", onnx_files.FLOAT, (None, None)))
    assert model.predict({"x": np.ones((2, 5))})["y"].shape == (2, 5)


def test_a_graph_of_unknown_rank_takes_every_rank(tmp_path):
    model = Model.load(onnx_files.identity(tmp_path / "m.onnx", onnx_files.FLOAT, None))
    for shape in ((), (3,), (2, 3, 1)):
        assert model.predict({"x": np.ones(shape)})["y"].shape == shape


def test_a_contract_that_does_not_fit_its_graph_is_refused(tmp_path):
    def load(contract=None, metadata=None):
        x = [onnx_files.tensor("x", onnx_files.FLOAT, ["batch", 3])]
        y = [onnx_files.tensor("y", onnx_files.FLOAT, ["batch", 3])]
        path = tmp_path / "m.onnx"
        nodes = [onnx_files.node("Identity", ["x"], ["y"])]
        return Model.load(onnx_files.save(path, nodes, x, y, (), contract, metadata))

    x, y = (TensorSpec(name, "float32", ("batch", 3)) for name in "xy")
    assert load(Contract((x,), (y,))).brings_contract
    for inputs in (
        (),
        (TensorSpec("z", "float32", ("batch", 3)),),
        (TensorSpec("x", "int32", ("batch", 3)),),
        (TensorSpec("x", "float32", ("batch",)),),
        (TensorSpec("x", "float32", ("batch", 3), ragged=True),),
        (TensorSpec("x", "float32", ("batch", 3), tree_of="w"),),
        (TensorSpec("x", "float32", ("batch", 3), leaves_of="x"),),
    ):
        with pytest.raises(ModelLoadError, match="contract"):
            load(Contract(inputs, (y,)))
    for output in (TensorSpec("z", "float32", ("batch", 3)), TensorSpec("y", "int32", (1,))):
        with pytest.raises(ModelLoadError, match=r"contract .* output"):
            load(Contract((x,), (output,)))
    with pytest.raises(ModelLoadError, match=r"contract .* input 'x' .* 4.* graph .* 3"):
        load(Contract((TensorSpec("x", "float32", ("batch", 4)),), (y,)))
    for text in ("", "{}", "[]", '{"format": 99, "inputs": [], "outputs": []}'):
        with pytest.raises(ModelLoadError, match="contract"):
            load(metadata=text)


@pytest.mark.parametrize("relation", ["leaves_of", "edges_of"])
def test_what_belongs_to_a_tree_needs_the_parents_of_one(tmp_path, relation):
    dims = {"x": ("x.values",), "p": ("p.values",)}
    tensors = [
        onnx_files.tensor(name, kind, shape)
        for x in "xp"
        for name, kind, shape in (
            (x, onnx_files.INT32, dims[x]),
            (f"{x}.row_splits", onnx_files.INT64, ("batch+1",)),
        )
    ]
    y = [onnx_files.tensor("y", onnx_files.INT32, ("y",))]
    nodes = [onnx_files.node("Concat", ["x", "p"], ["y"], axis=0)]

    def load(**of_parents):
        x = TensorSpec("x", "int32", dims["x"], ragged=True, **{relation: "p"})
        p = TensorSpec("p", "int32", dims["p"], ragged=True, **of_parents)
        contract = Contract((x, p), (TensorSpec("y", "int32", ("y",)),))
        path = onnx_files.save(tmp_path / "m.onnx", nodes, tensors, y, contract=contract)
        return Model.load(path)

    model = load(tree_of="p")
    assert model.predict(example_inputs(model.contract), ["y"])["y"].size
    with pytest.raises(ModelLoadError, match="input 'x' belongs to the parents 'p', but not that"):
        load()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": [None]},
        {"shape": [-1]},
        {"shape": "b"},
        {"minimum": "0"},
        {"maximum": [1]},
        {"name": 5},
        {"dtype": 5},
        {"ragged": "yes"},
        {"tree_of": 1},
        {"max_children": 0.5},
        {"forest": 1},
        {"leaves_of": True},
        {"edges_of": ["x"]},
        {"edge_labels": "3"},
        {"siblings_differ": None},
    ],
)
def test_a_contract_of_wrong_types_is_refused_when_loaded_and_not_when_used(tmp_path, wrong):
    item = {"name": "x", "dtype": "float32", "shape": ["batch"], **wrong}
    y = {"name": "y", "dtype": "float32", "shape": ["batch"]}
    text = json.dumps({"format": 1, "inputs": [item], "outputs": [y]})
    value = [onnx_files.tensor(name, onnx_files.FLOAT, ["batch"]) for name in "xy"]
    nodes = [onnx_files.node("Identity", ["x"], ["y"])]
    path = onnx_files.save(tmp_path / "m.onnx", nodes, value[:1], value[1:], metadata=text)
    with pytest.raises(ModelLoadError, match="broken contract"):
        Model.load(path)


def test_text_that_no_utf_8_can_carry_is_refused(tmp_path):
    model = Model.load(onnx_files.identity(tmp_path / "m.onnx", onnx.TensorProto.STRING))
    with pytest.raises(RunError, match="UTF-8"):
        model.predict({"x": ["a", "\ud800"]})


def test_what_is_no_tensor_cannot_be_served(tmp_path):
    sequence = onnx.helper.make_tensor_sequence_value_info("y", onnx_files.FLOAT, None)
    path = onnx_files.save(
        tmp_path / "m.onnx",
        [onnx_files.node("SequenceConstruct", ["x"], ["y"])],
        [onnx_files.tensor("x", onnx_files.FLOAT, ["n"])],
        [sequence],
    )
    with pytest.raises(ModelLoadError, match=r"m\.onnx: 'y' is seq\(tensor\(float\)\)"):
        Model.load(path)


def test_who_writes_over_a_file_of_weights_does_not_change_the_answers(tmp_path):
    path = onnx_files.gather(tmp_path / "model.onnx")
    file = onnx.load(path)
    table = file.graph.initializer[0]
    table.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(table), table.name))
    onnx.save(file, path, save_as_external_data=True, location="table.bin", size_threshold=0)
    model = Model.load(path)
    expected = model.predict({"x": [0, 2]})["y"].tolist()
    data = tmp_path / "table.bin"
    data.write_bytes(bytes(data.stat().st_size))
    assert model.predict({"x": [0, 2]})["y"].tolist() == expected == [[0, 1], [4, 5]]
    data.write_bytes(b"")  # where it were mapped, this would end the process
    assert model.predict({"x": [0, 2]})["y"].tolist() == expected


@pytest.mark.parametrize("place", ["../table.bin", "/etc/hostname", "nope.bin"])
def test_weights_that_are_elsewhere_or_nowhere_are_refused(tmp_path, place):
    path = onnx_files.gather(tmp_path / "model" / "model.onnx")
    (tmp_path / "table.bin").write_bytes(bytes(24))
    file = onnx.load(path)
    table = file.graph.initializer[0]
    table.ClearField("raw_data")
    table.ClearField("float_data")
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value=place)
    path.write_bytes(file.SerializeToString())
    with pytest.raises(ModelLoadError, match="data"):
        Model.load(path)


def test_what_onnxruntime_refuses_is_a_run_error(repository):
    with pytest.raises(RunError, match="Gather: indices element out of data bounds"):
        repository.get("gather").predict({"x": [5]})


def test_a_run_error_shows_no_source_lines_of_onnxruntime(tmp_path):
    model = Model.load(onnx_files.rows_of_four(tmp_path / "m.onnx"))
    assert model.predict({"x": [1] * 8})["y"].shape == (2, 4)
    with pytest.raises(RunError) as raised:
        model.predict({"x": [1] * 6})
    message = str(raised.value)
    assert message.startswith("Reshape: ")
    assert "{6}" in message
    assert "onnxruntime" not in message
    assert ".h:" not in message


def test_predict_runs_from_several_threads_at_once(row_sums):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        sums = pool.map(lambda n: int(row_sums.predict({"x": [[n % 10] * n]})["y"][0]), range(100))
        assert list(sums) == [n % 10 * n for n in range(100)]


def test_the_example_of_every_model_is_valid(repository):
    for model in repository.all_models():
        outputs = model.predict(example_inputs(model.contract))
        assert set(outputs) == set(model.output_names)
        names = [item["name"] for item in example_request(model.contract)["inputs"]]
        assert names == [tensor.name for tensor in model.contract.flat_inputs()]


def test_the_example_of_a_tree_has_a_word_for_each_leaf_and_slots_apart(repository):
    arrays = example_inputs(repository.get("parse").contract)
    assert arrays["parents"].tolist() == [-1, 0, 0, -1, 0]
    assert arrays["slots"].tolist() == [0, 0, 1, 0, 0]
    assert arrays["words.row_splits"].tolist() == [0, 2, 3]


def test_the_example_of_a_masked_input_is_not_padding():
    spec = TensorSpec("x", "int32", ("batch", "time"), minimum=0, maximum=9, padding=0)
    assert example_inputs(Contract((spec,), ()))["x"].tolist() == [[1, 1, 1]]


def test_the_example_keeps_bounds_and_named_dims():
    contract = Contract(
        (
            TensorSpec("low", "int32", ("batch", "time"), minimum=5),
            TensorSpec("high", "float32", ("batch", "time+1", 2), maximum=-1.5),
            TensorSpec("text", "string", ("batch",)),
        ),
        (),
    )
    arrays = example_inputs(contract)
    assert arrays["low"].tolist() == [[5, 5, 5]]
    assert arrays["high"].shape == (1, 4, 2)
    assert set(arrays["high"].flat) == {-1.5}
    assert arrays["text"].tolist() == ["text"]
