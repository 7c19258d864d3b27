"""Models of trees from Keras over the proof to the server: one contract all the way."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_runs import TOLERANCE, random_weights

import keras_blocks as kb
from keras_blocks import trees
from keras_blocks.contract.example import example_inputs
from keras_blocks.contract.feeds import flat_inputs
from keras_blocks.contract.validation import InputChecks
from keras_blocks.errors import ContractError, ExportError, TreeError
from keras_blocks.export import export_onnx
from keras_blocks.export.signature.signature import signature_of
from keras_blocks.serving import Model

WIDTH = 4
VECTORS = {
    "tokens": keras.Input((None,), dtype="int32", ragged=True, name="tokens"),
    "x": keras.Input((None, WIDTH), ragged=True, name="x"),
}
PARENTS, EDGES = (
    keras.Input((None,), dtype="int32", ragged=True, name=name) for name in ("parents", "edges")
)
# Three trees: of five nodes, of one, of none; the leaves are nodes 2, 3 and 4, and node 0.
TREES = [[-1, 0, 0, 1, 1], [-1], []]
WORDS = [[4, 9, 9], [2], []]
X = [np.random.default_rng(3).normal(size=(len(tree), WIDTH)).tolist() for tree in TREES]


@dataclass(frozen=True)
class Case:
    """A model of trees.

    Args:
        layer: makes it.
        inputs: a batch that fits it, by name.
        refused: changes of the batch, and what the server says to them.
    """

    layer: Callable[[], kb.TreeRecursive]
    inputs: dict[str, Any]
    refused: tuple[tuple[dict[str, Any], str], ...] = field(default=())

    def model(self) -> keras.Model:
        (name,) = VECTORS.keys() & self.inputs.keys()
        vectors = VECTORS[name]
        taken = [vectors, PARENTS, *([EDGES] if "edges" in self.inputs else [])]
        if name == "tokens":
            vectors = kb.Embedding(10, WIDTH)(vectors)
        outputs = self.layer()([vectors, *taken[1:]])
        return random_weights(keras.Model({t.name: t for t in taken}, {"y": outputs}))


CROWDED = ({"parents": [[-1, 0, 0, 0, 1], [-1], []]}, r"'parents': node 0 of tree 0 has 3 children")
FEW_WORDS = (
    {"tokens": [[4, 9], [2], []]},
    r"'tokens.row_splits': row 0 has 2 steps, but tree 0 of 'parents' has 3 leaves",
)
TWO_ROOTS = ({"parents": [[-1, 0, -1, 1, 1], [-1], []]}, r"'parents': tree 0 has 2 roots")
CASES = {
    "words_on_leaves": Case(
        lambda: kb.TreeRecursive(
            kb.NaryTreeLSTMCell(5, arity=2), features_on="leaves", return_nodes=True
        ),
        {"tokens": WORDS, "parents": TREES},
        (FEW_WORDS, CROWDED, TWO_ROOTS),
    ),
    "labels_of_edges": Case(
        lambda: kb.TreeRecursive(kb.ChildSumTreeLSTMCell(5, edge_labels=3)),
        {"x": X, "parents": TREES, "edges": [[-1, 2, 0, 1, 1], [77], []]},
        (
            ({"edges": [[0, 2, 3, 1, 1], [0], []]}, r"'edges': node 2 of tree 0 has the label 3"),
            ({"edges": [[0, 2, 0, -1, 1], [0], []]}, r"'edges': node 3 of tree 0 has the label -1"),
            ({"edges": [[0, 2, 0, 1], [0], [1]]}, r"'edges.row_splits': tree 0 has 4 nodes"),
        ),
    ),
    "slots": Case(
        lambda: kb.TreeRecursive(kb.NaryTreeLSTMCell(5, arity=2)),
        {"x": X, "parents": TREES, "edges": [[5, 1, 0, 1, 0], [-1], []]},
        (
            ({"edges": [[0, 1, 0, 1, 1], [0], []]}, r"'edges': node 4 of .* as its sibling node 3"),
            ({"edges": [[0, 1, 2, 1, 0], [0], []]}, r"'edges': node 2 .* expected 0 to 1"),
        ),
    ),
    "forests": Case(
        lambda: kb.TreeRecursive(kb.TreeGRUCell(5), forests="sum"),
        {"x": X, "parents": [[-1, 0, -1, 0, -1], [-1], []]},
        (
            ({"parents": [[1, 0, 1, 1, 1], [-1], []]}, r"'parents': tree 0 has 0 roots .*at least"),
            ({"parents": [[-1, 0, 3, 2, -1], [-1], []]}, r"'parents': node 2 .* cycle"),
        ),
    ),
    "both_directions": Case(
        lambda: kb.TreeRecursive(
            kb.RecursiveTensorCell(WIDTH),
            direction="both",
            features_on="leaves",
            return_nodes=True,
        ),
        {"tokens": WORDS, "parents": TREES},
        (FEW_WORDS, CROWDED, TWO_ROOTS),
    ),
    **{
        combine: Case(
            lambda combine=combine: kb.TreeRecursive(
                keras.layers.Dense(5, "tanh"), combine=combine
            ),
            {"x": X, "parents": TREES},
            (TWO_ROOTS, ({"x": [X[0][:3], X[1], X[2]]}, r"tree 0 has 5 nodes, but 'x' has 3")),
        )
        for combine in ("mean", "max")
    },
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_tree_is_proven_and_served_under_one_contract(case, tmp_path):
    model = case.model()
    result = export_onnx(model, tmp_path / "m.onnx", verbose=False)
    assert result.parity.ok
    assert not result.parity.skipped, "every sample is one that the model takes"
    served = Model.load(tmp_path / "m.onnx", threads=1)
    assert_same(model, served.predict(case.inputs), case.inputs)
    example = example_inputs(served.contract)
    assert_same(model, served.predict(example), rows_of(example, case.inputs))
    for change, message in case.refused:
        wrong = {**case.inputs, **change}
        with pytest.raises(ContractError, match=message):
            served.predict(wrong)
        # The server refuses nothing that the model would take.
        with pytest.raises((TreeError, tf.errors.InvalidArgumentError)):
            model(tensors(wrong))


@st.composite
def batches(draw):
    """Trees or forests, sound but for one kind of fault that they may have."""
    fault = draw(st.sampled_from([None, "parents", "edges", "words"]))
    roots = draw(st.sampled_from([0, -1]))
    batch = {"x": [], "parents": [], "edges": []}
    for nodes in draw(st.lists(st.integers(0, 4), min_size=1, max_size=2)):
        last = [nodes - 1 if fault == "parents" else node - 1 for node in range(nodes)]
        parents = [draw(st.integers(roots if node else -1, end)) for node, end in enumerate(last)]
        least, most = (-1, 2) if fault == "edges" else (0, 1)
        edges = [draw(st.integers(least, most)) for _ in parents]
        leaves = len(set(range(nodes)) - set(parents)) + (fault == "words" and draw(st.booleans()))
        batch["parents"].append(parents)
        batch["edges"].append(edges)
        batch["x"].append([[0.5] * WIDTH] * leaves)
    return batch


CELLS = {
    "slots": lambda: kb.NaryTreeLSTMCell(2, arity=2),
    "labels": lambda: kb.ChildSumTreeLSTMCell(2, edge_labels=2),
}


@pytest.mark.parametrize("forests", ["refuse", "sum"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_the_contract_allows_exactly_what_the_layer_takes(cell, forests):
    layer = kb.TreeRecursive(cell(), features_on="leaves", forests=forests)
    given_inputs = [VECTORS["x"], PARENTS, EDGES]
    contract = signature_of(keras.Model(given_inputs, layer(given_inputs))).contract
    verdicts = set()

    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    @given(batches())
    def check(batch):
        verdict = accepted(contract, batch)
        verdicts.add(verdict)
        assert verdict == taken(layer, list(tensors(batch).values()))

    check()
    assert verdicts == {True, False}


def accepted(contract, batch):
    try:
        InputChecks(contract).check(flat_inputs(contract, batch))
    except ContractError:
        return False
    return True


def taken(layer, inputs):
    try:
        layer(inputs)
    except TreeError:
        return False
    return True


def assert_same(model, outputs, rows):
    expected = model(tensors(rows), training=False)["y"]
    if "y.row_splits" in outputs:
        np.testing.assert_array_equal(outputs["y.row_splits"], expected.row_splits)
        expected = expected.values
    np.testing.assert_allclose(outputs["y"], expected, rtol=TOLERANCE, atol=TOLERANCE)


def tensors(rows):
    def tensor(name, values):
        lengths = [len(row) for row in values]
        dtype, size = ("float32", [WIDTH]) if name == "x" else ("int32", [])
        flat = [np.reshape(row, [-1, *size]) for row in values]
        return tf.RaggedTensor.from_row_lengths(np.concatenate(flat).astype(dtype), lengths)

    return {name: tensor(name, values) for name, values in rows.items()}


def rows_of(flat, names):
    return {name: np.split(flat[name], flat[f"{name}.row_splits"][1:-1]) for name in names}


def test_a_scheduled_model_is_refused_and_its_layers_serve_a_plain_one(tmp_path):
    layer = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(5))
    packed = keras.Input((None, 6), dtype="int32", ragged=True, name="packed")
    nodes = VECTORS["x"]
    scheduled = keras.Model([nodes, packed], layer([nodes, packed]))
    with pytest.raises(ExportError, match=r"trees\.schedule .*second one on keras\.Input"):
        export_onnx(scheduled, tmp_path / "m.onnx", verbose=False)
    assert not list(tmp_path.iterdir())
    plain = keras.Model([nodes, PARENTS], layer([nodes, PARENTS]))
    given = tensors({"x": X, "parents": TREES})
    np.testing.assert_array_equal(
        scheduled([given["x"], trees.schedule(given["parents"])]),
        plain([given["x"], given["parents"]]),
    )
