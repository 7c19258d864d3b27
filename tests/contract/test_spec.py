"""The contract is the same after the way through the metadata, and knows what it cannot read."""

import json

import pytest

from keras_blocks.contract import FORMAT_VERSION, Contract, TensorSpec

RAGGED = {"dtype": "int32", "ragged": True}
TREES = Contract(
    (
        TensorSpec("words", shape=("words.values",), maximum=9, leaves_of="parents", **RAGGED),
        TensorSpec(
            "parents",
            shape=("parents.values",),
            minimum=-1,
            tree_of="parents",
            max_children=2,
            forest=True,
            **RAGGED,
        ),
        TensorSpec(
            "slots",
            shape=("slots.values",),
            edges_of="parents",
            edge_labels=2,
            siblings_differ=True,
            **RAGGED,
        ),
    ),
    (TensorSpec("y", "float32", ("batch", 3)),),
)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Nothing to freshen up: no Keras in these tests."""


def test_what_is_read_is_what_was_written():
    assert Contract.from_json(TREES.to_json()) == TREES


def test_a_contract_of_the_first_format_is_read():
    fields = ("name", "dtype", "shape", "ragged", "minimum", "maximum", "tree_of", "max_children")
    old = dict.fromkeys(fields) | {"dtype": "int32", "ragged": True}
    inputs = [
        {**old, "name": "tokens", "shape": ["tokens.values"], "minimum": 0, "maximum": 9},
        {**old, "name": "parents", "shape": ["parents.values"], "tree_of": "tokens"},
    ]
    tokens, parents = Contract.from_json(
        json.dumps({"format": 1, "inputs": inputs, "outputs": []})
    ).inputs
    assert tokens == TensorSpec(
        "tokens", "int32", ("tokens.values",), ragged=True, minimum=0, maximum=9
    )
    assert parents == TensorSpec(
        "parents", "int32", ("parents.values",), ragged=True, tree_of="tokens"
    )


def test_a_contract_without_least_sizes_is_read():
    spec = TensorSpec("x", "float32", ("batch", "x.time", 4))
    body = json.loads(Contract((spec,), ()).to_json())
    del body["inputs"][0]["least"]
    assert Contract.from_json(json.dumps({**body, "format": 3})).inputs == (spec,)


def test_the_tensors_of_the_graph_have_the_least_sizes():
    spec = TensorSpec("x", "float32", ("batch", "x.time", 4), least=(0, 5, 0))
    read = Contract.from_json(Contract((spec,), ()).to_json())
    assert [tensor.least for tensor in read.flat_inputs()] == [(0, 5, 0)]


@pytest.mark.parametrize("least", [[0, 5], [0, -1, 0], [0, "5", 0], "abc", 5])
def test_least_sizes_are_one_for_each_dim(least):
    spec = TensorSpec("x", "float32", ("batch", "x.time", 4))
    body = json.loads(Contract((spec,), ()).to_json())
    body["inputs"][0]["least"] = least
    with pytest.raises(ValueError, match="not a keras_blocks contract"):
        Contract.from_json(json.dumps(body))


def test_a_newer_format_asks_for_an_upgrade():
    body = {**json.loads(TREES.to_json()), "format": FORMAT_VERSION + 1}
    with pytest.raises(ValueError, match=f"reads up to {FORMAT_VERSION}; upgrade"):
        Contract.from_json(json.dumps(body))


def test_what_an_older_reader_would_overlook_is_of_a_newer_format():
    # Format 1 had none of these fields; its readers must not take the file.
    assert json.loads(TREES.to_json())["format"] > 1
