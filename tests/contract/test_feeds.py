"""A user's data becomes the flat inputs of a file, or is refused with what came and what fits."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from keras_blocks.contract import Contract, TensorSpec
from keras_blocks.contract.array_files import read_array
from keras_blocks.contract.feeds import ROWS, as_feeds
from keras_blocks.errors import ContractError

DENSE = Contract((TensorSpec("x", "float32", ("batch", 3)),), ())
PAIR = Contract(
    (TensorSpec("ids", "int32", ("batch", "time")), TensorSpec("mask", "bool", ("batch", "time"))),
    (),
)
RAGGED = Contract(
    (
        TensorSpec("tokens", "int32", ("tokens.values",), ragged=True),
        TensorSpec("vectors", "float32", ("vectors.values", 2), ragged=True),
    ),
    (),
)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no model is made here."""


def test_an_array_is_the_only_input():
    (feed,) = as_feeds(DENSE, np.arange(6).reshape(2, 3), "inputs")
    assert feed["x"].dtype == "float32"
    assert feed["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_file_of_one_array_is_the_only_input(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6).reshape(2, 3))
    (feed,) = as_feeds(DENSE, tmp_path / "x.npy", "inputs")
    assert feed["x"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_many_rows_come_in_parts_and_none_is_lost():
    rows = np.random.default_rng(0).normal(size=(2 * ROWS + 5, 3)).astype("float32")
    feeds = as_feeds(DENSE, rows, "inputs")
    assert [len(feed["x"]) for feed in feeds] == [ROWS, ROWS, 5]
    assert np.array_equal(np.concatenate([feed["x"] for feed in feeds]), rows)


def test_an_iterable_is_one_batch_after_another():
    batches = (np.full((n, 3), n) for n in (1, 2))
    assert [len(feed["x"]) for feed in as_feeds(DENSE, batches, "inputs")] == [1, 2]


def test_ragged_inputs_are_rows_or_values_with_splits_or_tensors():
    tokens, vectors = [[4, 5], [], [6]], [[[1, 2], [3, 4]], [], [[5, 6]]]
    values = np.array([[1, 2], [3, 4], [5, 6]], "float32")
    ways = (
        {"tokens": tokens, "vectors": vectors},
        {
            "tokens": [4, 5, 6],
            "tokens.row_splits": [0, 2, 2, 3],
            "vectors": values,
            "vectors.row_splits": [0, 2, 2, 3],
        },
        {
            "tokens": tf.ragged.constant(tokens),
            "vectors": tf.RaggedTensor.from_row_splits(values, [0, 2, 2, 3]),
        },
    )
    for way in ways:
        (feed,) = as_feeds(RAGGED, way, "inputs")
        assert feed["tokens"].tolist() == [4, 5, 6]
        assert feed["tokens"].dtype == "int32"
        assert feed["tokens.row_splits"].tolist() == [0, 2, 2, 3]
        assert np.array_equal(feed["vectors"], values)
        assert feed["vectors.row_splits"].dtype == "int64"


def test_many_ragged_rows_come_in_parts_of_their_own_splits():
    rows = [list(range(n % 3)) for n in range(ROWS + 2)]
    data = {"tokens": rows, "vectors": [[[0.0, 0.0]]] * len(rows)}
    feeds = as_feeds(RAGGED, data, "inputs")
    found = [
        feed["tokens"][start:end].tolist()
        for feed in feeds
        for start, end in zip(
            feed["tokens.row_splits"], feed["tokens.row_splits"][1:], strict=False
        )
    ]
    assert len(feeds) == 2
    assert found == rows


def test_rows_that_are_all_empty_keep_the_dims_of_their_values():
    (feed,) = as_feeds(RAGGED, {"tokens": [[]], "vectors": [[]]}, "inputs")
    assert feed["vectors"].shape == (0, 2)
    assert feed["tokens.row_splits"].tolist() == [0, 0]


def test_an_npz_file_holds_an_array_for_each_input(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, ids=np.zeros((2, 5), "int64"), mask=np.ones((2, 5), bool))
    for name in (path, str(path)):
        (feed,) = as_feeds(PAIR, name, "calibration")
        assert feed["ids"].dtype == "int32"
        assert feed["mask"].all()


@pytest.mark.parametrize(
    ("contract", "data", "message"),
    [
        (DENSE, {"x": [[1.0, 2.0, 3.0]], "z": 1}, "calibration: input 'z' is unknown; the model"),
        (DENSE, {}, "calibration: input 'x' is missing; the model takes 'x'"),
        (DENSE, [], "calibration holds no batch"),
        (DENSE, np.zeros((0, 3)), "input 'x': it is empty"),
        (DENSE, np.zeros((2, 4)), r"input 'x': shape \[2, 4\] .* \[batch, 3\] expected"),
        (DENSE, np.zeros(3), r"input 'x': shape \[3\] has 1 dims"),
        (DENSE, np.array([["a", "b", "c"]]), "input 'x': dtype float32 expected, got <U1"),
        (DENSE, {"x": [[1, 2, 3], [4]]}, "input 'x': .*; all must be as long"),
        (PAIR, {"ids": [[1.5]], "mask": [[True]]}, "input 'ids': INT32 expected, but element 0"),
        (PAIR, {"ids": np.array([[2**32 + 5]]), "mask": [[True]]}, "element 0 is 4294967301"),
        (PAIR, {"ids": np.array([[2.0]]), "mask": [[True]]}, "dtype int32 expected, got float64"),
        (DENSE, np.array([[0, 1e39, 2]]), r"element 1 is 1e\+39"),
        (PAIR, {"ids": [[1]]}, "input 'mask' is missing; the model takes 'ids'"),
        (PAIR, np.zeros((1, 1)), r"a mapping expected: the model takes \['ids', 'mask'\]"),
        (PAIR, {"ids": [[1, 2]], "mask": [[True]]}, r"axis 1 \('time'\) is 1, but input 'ids' has"),
        (
            RAGGED,
            {
                "tokens": [1],
                "tokens.row_splits": [0, 2],
                "vectors": [[1.0, 2.0]],
                "vectors.row_splits": [0, 1],
            },
            "row splits end at the length of 'tokens', which is 1, got 2",
        ),
        (
            RAGGED,
            {
                "tokens": [1],
                "tokens.row_splits": [0, 2, 1],
                "vectors": [[[1.0, 2.0]], []],
            },
            "row splits never fall, but element 1 is 2 and element 2 is 1",
        ),
        (
            RAGGED,
            {"tokens": [[1]], "vectors": [[[1.0, 2.0]], []]},
            "is 3, but input 'tokens.row_splits' has batch = 1",
        ),
    ],
    ids=str,
)
def test_data_that_does_not_fit_is_refused(contract, data, message):
    with pytest.raises(ContractError, match=message):
        as_feeds(contract, data, "calibration")


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_integers_at_the_edges_of_their_type_come_through_and_none_beyond(dtype):
    contract = Contract((TensorSpec("x", dtype, ("batch",)),), ())
    info = np.iinfo(dtype)
    (feed,) = as_feeds(contract, np.array([info.min, info.max], dtype), "inputs")
    assert feed["x"].tolist() == [info.min, info.max]
    wrong = np.array([info.max + 1], "uint64") if info.max < 2**64 - 1 else np.array([-1])
    with pytest.raises(ContractError, match=f"outside the range of {dtype}"):
        as_feeds(contract, wrong, "inputs")


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "data.npz").write_text("no zip")
    with pytest.raises(ContractError, match=r"data\.npz: not an .npz file of plain arrays"):
        as_feeds(DENSE, tmp_path / "data.npz", "inputs")
    np.save(tmp_path / "one.npy", np.zeros((1, 3)))
    with pytest.raises(ContractError, match="a mapping expected: the model takes"):
        as_feeds(PAIR, tmp_path / "one.npy", "inputs")
    np.savez(tmp_path / "pickled.npz", x=np.array([print], dtype=object))
    with pytest.raises(ContractError, match="of plain arrays"):
        as_feeds(DENSE, tmp_path / "pickled.npz", "inputs")


def test_labels_are_the_one_array_of_a_file(tmp_path):
    np.save(tmp_path / "one.npy", np.arange(3))
    np.savez(tmp_path / "one.npz", labels=np.arange(3))
    for name in ("one.npy", "one.npz"):
        assert read_array(tmp_path / name).tolist() == [0, 1, 2]
    np.savez(tmp_path / "two.npz", a=np.arange(3), b=np.arange(3))
    with pytest.raises(ContractError, match="one array expected, it holds a, b"):
        read_array(tmp_path / "two.npz")
