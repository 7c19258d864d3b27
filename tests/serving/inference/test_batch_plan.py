import numpy as np
import onnx_files
import pytest
from onnx import TensorProto

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.serving import BatchSettings
from keras_blocks.serving.inference import batch_check as batch_proof
from keras_blocks.serving.inference.batch_check import checked_batch_plan
from keras_blocks.serving.inference.batch_plan import plan_batches
from keras_blocks.serving.model import Model


def spec(name, *shape, **kwargs):
    return TensorSpec(name, "float32", shape, **kwargs)


def floats(*shape):
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


def ragged(values, splits, name="x"):
    return {name: np.array(values), f"{name}.row_splits": np.array(splits, dtype="int64")}


RAGGED = spec("x", "x.values", ragged=True)


def test_dense_requests_are_laid_after_one_another_and_cut_apart_again():
    plan = plan_batches(Contract((spec("x", "batch", 3),), (spec("y", "batch"),)))
    requests = [{"x": floats(2, 3)}, {"x": floats(1, 3) + 9}]
    assert plan.join(requests)["x"].tolist() == [[0, 1, 2], [3, 4, 5], [9, 10, 11]]
    parts = plan.split(requests, {"y": np.array([5, 6, 7])})
    assert [part["y"].tolist() for part in parts] == [[5, 6], [7]]
    assert [plan.count_rows(inputs) for inputs in requests] == [2, 1]


def test_ragged_requests_of_any_lengths_join_and_come_apart_row_by_row():
    out = spec("y", "y.values", ragged=True)
    plan = plan_batches(Contract((RAGGED,), (out, spec("sums", "batch"))))
    requests = [ragged([1, 2, 3], [0, 1, 3]), ragged([], [0, 0]), ragged([4], [0, 0, 1])]
    joined = plan.join(requests)
    assert joined["x"].tolist() == [1, 2, 3, 4]
    assert joined["x.row_splits"].tolist() == [0, 1, 3, 3, 3, 4]
    # The output has rows of other lengths than the input.
    outputs = {**ragged([9, 8, 7], [0, 0, 1, 2, 2, 3], "y"), "sums": np.arange(5)}
    one, two, three = plan.split(requests, outputs)
    assert (one["y"].tolist(), one["y.row_splits"].tolist()) == ([9], [0, 0, 1])
    assert (two["y"].tolist(), two["y.row_splits"].tolist()) == ([8], [0, 1])
    assert (three["y"].tolist(), three["y.row_splits"].tolist()) == ([7], [0, 0, 1])
    assert [part["sums"].tolist() for part in (one, two, three)] == [[0, 1], [2], [3, 4]]


def test_an_output_with_an_entry_for_each_value_is_cut_by_the_lengths_of_that_input():
    plan = plan_batches(Contract((RAGGED,), (spec("y", "x.values", 2),)))
    requests = [ragged([1, 2, 3], [0, 3]), ragged([4], [0, 1])]
    parts = plan.split(requests, {"y": floats(4, 2)})
    assert [part["y"].shape for part in parts] == [(3, 2), (1, 2)]


def test_only_requests_that_agree_in_the_free_dims_share_a_run():
    plan = plan_batches(Contract((spec("x", "batch", "time", 4),), (spec("y", "batch"),)))
    assert plan.key({"x": floats(2, 5, 4)}) == plan.key({"x": floats(7, 5, 4)})
    assert plan.key({"x": floats(2, 5, 4)}) != plan.key({"x": floats(2, 6, 4)})


def test_row_splits_that_are_not_asked_for_are_run_for_their_values():
    plan = plan_batches(Contract((RAGGED,), (spec("y", "y.values", ragged=True),)))
    assert plan.outputs_needed(frozenset({"y"})) == {"y", "y.row_splits"}


def test_outputs_of_another_length_than_promised_are_not_cut():
    plan = plan_batches(Contract((spec("x", "batch"),), (spec("y", "batch"),)))
    with pytest.raises(ValueError, match=r"output 'y' has shape \[3\], 2 entries expected"):
        plan.split([{"x": floats(1)}, {"x": floats(1)}], {"y": floats(3)})


NOT_BATCHED = {
    "an output without the batch axis": ([spec("x", "batch", 3)], [spec("y", 3)]),
    "an output of one number": ([spec("x", "batch", 3)], [spec("y")]),
    "an output that counts rows twice": ([spec("x", "batch")], [spec("y", "batch", "batch")]),
    "an output that counts rows later": ([spec("x", "batch", 3)], [spec("y", 3, "batch")]),
    "an input that counts rows later": ([spec("x", "batch", "batch")], [spec("y", "batch")]),
    "an input of one number": ([spec("x")], [spec("y")]),
    "a fixed number of rows": ([spec("x", 1, 3)], [spec("y", 1)]),
    "inputs that count other things": ([spec("x", "n"), spec("z", "m")], [spec("y", "n")]),
    "one weight for all rows": ([spec("x", "batch"), spec("w", 3)], [spec("y", "batch")]),
    "a weight beside ragged rows": ([RAGGED, spec("w", 3)], [spec("y", "batch")]),
    "no inputs": ([], [spec("y", "batch")]),
    "one more than the rows": ([spec("x", "batch")], [spec("y", "batch+1")]),
}


@pytest.mark.parametrize("case", NOT_BATCHED)
def test_a_model_whose_tensors_do_not_follow_the_rows_is_not_batched(case):
    inputs, outputs = NOT_BATCHED[case]
    assert plan_batches(Contract(tuple(inputs), tuple(outputs))) is None


# Padding

MASKED = spec("x", "batch", "time", 2, padding=-1.0)
SEQUENCES = (spec("y", "batch", "time"), spec("z", "batch", "time", "time"), spec("w", "batch"))


def test_unequal_lengths_are_filled_up_with_what_is_masked_and_cut_off_again():
    plan = plan_batches(Contract((MASKED, spec("mates", "batch", "time")), SEQUENCES))
    requests = [{"x": floats(n, t, 2), "mates": floats(n, t)} for n, t in ((1, 2), (2, 3))]
    joined = plan.join(requests)
    assert joined["x"][0].tolist() == [[0, 1], [2, 3], [-1, -1]]
    assert joined["x"][1:].tolist() == requests[1]["x"].tolist()
    assert joined["mates"].tolist() == [[0, 1, 0], [0, 1, 2], [3, 4, 5]]
    outputs = {"y": floats(3, 3), "z": floats(3, 3, 3), "w": floats(3)}
    one, two = plan.split(requests, outputs)
    assert one["y"].tolist() == [[0, 1]]
    assert one["z"].tolist() == [[[0, 1], [3, 4]]]
    assert one["w"].tolist() == [0]
    assert (two["y"].shape, two["z"].shape, two["w"].shape) == ((2, 3), (2, 3, 3), (2,))


def test_less_than_half_of_a_run_is_padding():
    plan = plan_batches(Contract((MASKED,), SEQUENCES))
    keys = [plan.key({"x": floats(1, steps, 2)}) for steps in range(1, 65)]
    assert keys[4] == keys[5] == keys[6] != keys[7]  # 5, 6 and 7 steps together, 8 apart
    assert len(set(keys)) == 7


def test_rows_of_nothing_but_masked_steps_are_not_padded():
    plan = plan_batches(Contract((MASKED,), SEQUENCES))
    empty = np.full((1, 5, 2), -1, "float32")
    assert plan.key({"x": empty}) != plan.key({"x": floats(1, 5, 2)})
    assert plan.key({"x": empty}) != plan.key({"x": empty[:, :4]})
    mixed = np.concatenate([empty, floats(1, 5, 2)])
    assert plan.key({"x": mixed}) == plan.key({"x": empty})
    assert plan.key({"x": floats(1, 0, 2)}) != plan.key({"x": floats(1, 1, 2)})


def test_a_dim_that_is_not_the_second_is_not_padded():
    crossed = spec("scores", "batch", 4, "time")
    plan = plan_batches(Contract((MASKED, crossed), SEQUENCES))
    assert (plan.padding.values, plan.free) == ({}, ("x", "scores"))


# The proof


def plan_of(make, tmp_path, *arguments):
    return checked_batch_plan(Model.load(make(tmp_path / "model.onnx", *arguments)))


@pytest.mark.parametrize("name", ["double", "add_bias", "row_sums", "tree", "parse", "log"])
def test_models_with_rows_of_their_own_are_proven(name, tmp_path):
    assert plan_of(getattr(onnx_files, name), tmp_path) is not None


def test_a_table_of_unknown_size_is_proven_by_its_first_rows(tmp_path):
    assert plan_of(onnx_files.gather, tmp_path) is not None


def test_text_is_joined_too(tmp_path):
    assert plan_of(onnx_files.identity, tmp_path, TensorProto.STRING) is not None


def test_a_model_whose_rows_see_one_another_is_found_out_though_its_dims_fit(tmp_path):
    path = onnx_files.center(tmp_path / "model.onnx")
    assert plan_batches(Model.load(path).contract) is not None
    assert checked_batch_plan(Model.load(path)) is None


def test_a_model_with_one_scale_for_all_rows_is_not_batched(tmp_path):
    path = onnx_files.quantized(tmp_path / "model.onnx")
    assert plan_batches(Model.load(path).contract) is not None
    assert checked_batch_plan(Model.load(path)) is None


@pytest.mark.parametrize(
    ("op", "padded"), [("ReduceSum", True), ("ReduceMax", False), ("ReduceMean", False)]
)
def test_padding_that_changes_an_answer_is_found_out_and_equal_shapes_are_left(
    op, padded, tmp_path
):
    plan = plan_of(onnx_files.steps, tmp_path, op)
    assert (plan.padding.values, plan.free) == (({"x": 0}, ()) if padded else ({}, ("x",)))


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.FLOAT16])
def test_halves_are_joined_too(kind, tmp_path):
    assert plan_of(onnx_files.identity, tmp_path, kind) is not None


@pytest.mark.parametrize("name", ["products", "column_sums", "rows_of_four", "expand", "slow"])
def test_models_whose_dims_do_not_fit_are_not_run(name, tmp_path):
    assert plan_of(getattr(onnx_files, name), tmp_path) is None


# The proof at the sizes that are joined


def threshold(path, measured, least):
    """y = x - mean of x over the rows where as much is in the run, else y = x."""
    of_what = {
        "rows": [
            onnx_files.node("Shape", ["x"], ["shape"]),
            onnx_files.node("Gather", ["shape", "first"], ["size"]),
        ],
        "elements": [onnx_files.node("Size", ["x"], ["size"])],
    }[measured]
    return onnx_files.save(
        path,
        [
            *of_what,
            onnx_files.node("GreaterOrEqual", ["size", "least"], ["many"]),
            onnx_files.node("Cast", ["many"], ["factor"], to=TensorProto.FLOAT),
            onnx_files.node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
            onnx_files.node("Mul", ["mean", "factor"], ["taken"]),
            onnx_files.node("Sub", ["x", "taken"], ["y"]),
        ],
        [onnx_files.tensor("x", TensorProto.FLOAT, ["batch", "time"])],
        [onnx_files.tensor("y", TensorProto.FLOAT, ["batch", "time"])],
        [
            onnx_files.constant("axes", TensorProto.INT64, [1], [0]),
            onnx_files.constant("first", TensorProto.INT64, [], [0]),
            onnx_files.constant("least", TensorProto.INT64, [], [least]),
        ],
    )


@pytest.mark.parametrize("least", [4, 9, 33, 64])
def test_rows_that_see_one_another_from_some_size_of_a_run_on_are_found_out(least, tmp_path):
    assert plan_of(threshold, tmp_path, "rows", least) is None


def test_rows_that_see_one_another_in_larger_runs_than_are_made_share_smaller_ones(tmp_path):
    model = Model.load(threshold(tmp_path / "model.onnx", "rows", 33))
    plan = checked_batch_plan(model, BatchSettings(max_batch_size=32))
    assert plan.most_rows == 32
    assert checked_batch_plan(model, BatchSettings(max_batch_size=100)) is None


def test_rows_that_see_one_another_where_runs_have_many_elements_are_found_out(tmp_path):
    assert plan_of(threshold, tmp_path, "elements", 500) is None


def ragged_threshold(path, least):
    """y = x - (mean of all values where there are as many), x ragged."""
    contract = Contract((RAGGED,), (spec("y", "x.values", ragged=True),))
    return onnx_files.save(
        path,
        [
            onnx_files.node("Size", ["x"], ["size"]),
            onnx_files.node("GreaterOrEqual", ["size", "least"], ["many"]),
            onnx_files.node("Cast", ["many"], ["factor"], to=TensorProto.FLOAT),
            onnx_files.node("ReduceMean", ["x"], ["mean"], keepdims=1),
            onnx_files.node("Mul", ["mean", "factor"], ["taken"]),
            onnx_files.node("Sub", ["x", "taken"], ["y"]),
            onnx_files.node("Identity", ["x.row_splits"], ["y.row_splits"]),
        ],
        [onnx_files.tensor("x", TensorProto.FLOAT, ["x.values"]),
         onnx_files.tensor("x.row_splits", TensorProto.INT64, ["batch+1"])],
        [onnx_files.tensor("y", TensorProto.FLOAT, ["x.values"]),
         onnx_files.tensor("y.row_splits", TensorProto.INT64, ["batch+1"])],
        [onnx_files.constant("least", TensorProto.INT64, [], [least])],
        contract,
    )  # fmt: skip


def test_ragged_rows_that_see_one_another_from_many_values_on_are_found_out(tmp_path):
    assert plan_of(ragged_threshold, tmp_path, 20_000) is None
    plan = plan_of(ragged_threshold, tmp_path, 10**6)
    assert 2**15 < plan.most_elements <= 2**16
    assert plan.most_rows == 64


def test_no_run_is_larger_than_those_that_were_tried(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_proof._Patience, "allows", lambda self, growth: growth != 4)
    plan = plan_of(onnx_files.row_sums, tmp_path)
    assert plan.most_rows == 64
    assert plan.most_elements < 64 * 4
    monkeypatch.setattr(batch_proof._Patience, "allows", lambda self, growth: False)
    assert plan_of(onnx_files.double, tmp_path) is None
