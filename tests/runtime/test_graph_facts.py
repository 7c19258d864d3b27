from collections import Counter

import numpy as np
import onnx
import onnx_files
import pytest

from keras_blocks.errors import ContractError, ModelLoadError
from keras_blocks.runtime.graph_facts import graph_facts
from keras_blocks.serving import Model


def ops_of(graph):
    """The ops as the package onnx sees them, subgraphs included."""
    counts = Counter(node.op_type for node in graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs]:
                counts += ops_of(inner)
    return counts


@pytest.mark.parametrize(
    "make", [onnx_files.double, onnx_files.row_sums, onnx_files.slow, onnx_files.recurrent]
)
def test_the_nodes_are_those_that_the_package_onnx_sees(tmp_path, make):
    path = make(tmp_path / "m.onnx")
    proto = onnx.load(path)
    facts = graph_facts(path)
    assert facts.ops == ops_of(proto.graph)
    assert facts.opset == {"ai.onnx": 18}


def test_nodes_of_functions_and_other_domains_are_seen(tmp_path):
    helper = onnx.helper
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 300)]
    gru = helper.make_node("GRU", ["a", "W", "R"], ["b"], hidden_size=1)
    function = helper.make_function("mine", "F", ["a", "W", "R"], ["b"], [gru], opsets[:1])
    graph = helper.make_graph([helper.make_node("F", ["x"], ["y"], domain="mine")], "g", [], [])
    model = helper.make_model(graph, opset_imports=opsets, functions=[function])
    onnx.save(model, tmp_path / "m.onnx")
    facts = graph_facts(tmp_path / "m.onnx")
    assert facts.ops == {"F": 1, "GRU": 1}
    assert facts.opset == {"ai.onnx": 18, "mine": 300}
    assert facts.recurrent
    assert facts.lengths_unknown


def test_an_lstm_in_int8_is_recurrent_too(tmp_path):
    path = onnx_files.save(
        tmp_path / "m.onnx",
        [onnx_files.node("DynamicQuantizeLSTM", ["x"], ["y"], domain="com.microsoft")],
        [],
        [],
    )
    facts = graph_facts(path)
    assert facts.recurrent
    assert facts.lengths_unknown


@pytest.mark.parametrize("content", [b"", b"not ONNX at all", b"\x3a\xff\xff\xff\x0f", b"\xff" * 9])
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelLoadError):
        graph_facts(tmp_path / "m.onnx")


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("shape", [(0, 2, 3), (4, 0, 3), (0, 0, 3)])
def test_empty_input_is_refused_where_onnxruntime_would_end_the_process(
    tmp_path, op, lengths, shape
):
    model = Model.load(onnx_files.recurrent(tmp_path / "m.onnx", op, lengths))

    def predict(steps, rows, features):
        extra = {"lengths": np.full(rows, steps)} if lengths else {}
        return model.predict({"x": np.zeros((steps, rows, features)), **extra})["y"]

    assert predict(4, 2, 3).shape == (1, 2, 2)
    with pytest.raises(ContractError, match=r"'x': shape .* is empty, and a GRU or LSTM"):
        predict(*shape)


def ragged_recurrent(path, lengths):
    """A GRU that is never reached, in a model with a ragged input: only its presence counts."""
    model = onnx.load(onnx_files.row_sums(path))
    inputs = ["a", "W", "R", "", "lens"] if lengths else ["a", "W", "R"]
    gru = onnx.helper.make_node("GRU", inputs, ["b"], hidden_size=1)
    opsets = [onnx.helper.make_opsetid("", 18)]
    names = [name for name in inputs if name]
    model.functions.append(onnx.helper.make_function("mine", "F", names, ["b"], [gru], opsets))
    onnx.save(model, path)
    return Model.load(path)


def test_an_empty_ragged_batch_runs_where_every_recurrent_op_knows_the_lengths(tmp_path):
    model = ragged_recurrent(tmp_path / "m.onnx", lengths=True)
    assert model.predict({"x": []})["y"].tolist() == []
    assert model.predict({"x": [[]]})["y"].tolist() == [0]


def test_an_empty_ragged_batch_is_refused_where_one_does_not(tmp_path):
    model = ragged_recurrent(tmp_path / "m.onnx", lengths=False)
    assert model.predict({"x": [[], [1]]})["y"].tolist() == [0, 1]
    for empty in ([], [[]]):
        with pytest.raises(ContractError, match=r"'x': shape .* is empty"):
            model.predict({"x": empty})


def test_a_recurrent_op_with_lengths_is_told_from_one_without(tmp_path):
    for op in ("GRU", "LSTM"):
        for lengths in (True, False):
            facts = graph_facts(onnx_files.recurrent(tmp_path / "m.onnx", op, lengths))
            assert facts.recurrent
            assert facts.lengths_unknown == (not lengths)
    assert not graph_facts(onnx_files.double(tmp_path / "m.onnx")).recurrent
