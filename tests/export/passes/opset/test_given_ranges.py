"""What onnxruntime loses up to 1.28: a range that a branch gives, once it fused a gather by it."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from keras_blocks.export.onnx_io.graphs import nested_graphs
from keras_blocks.export.passes.opset.given_ranges import give_copies_of_ranges


def gathering(name):
    """x by the places 0, 1, ..., n - 1, and these places."""
    nodes = [
        helper.make_node("Range", ["zero", "n", "one"], [f"{name}/places"]),
        helper.make_node("Gather", ["x", f"{name}/places"], [f"{name}/y"], axis=0),
    ]
    outputs = [
        helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, [None]),
        helper.make_tensor_value_info(f"{name}/places", TensorProto.INT64, [None]),
    ]
    return helper.make_graph(nodes, name, [], outputs)


def model_of(nodes, outputs):
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["m"]),
        helper.make_tensor_value_info("n", TensorProto.INT64, []),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, "int64"), name)
        for name, value in (("zero", 0), ("one", 1))
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def check(model):
    give_copies_of_ranges(model.graph)
    onnx.checker.check_model(model, full_check=True)
    for graph in nested_graphs(model.graph):
        ranges = {node.output[0] for node in graph.node if node.op_type == "Range"}
        assert not ranges & {value.name for value in graph.output}
    feeds = {"x": np.arange(5, dtype="float32"), "n": np.array(3), "c": np.array(True)}
    for y in onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds):
        assert y.tolist() == [0, 1, 2]


def test_a_branch_gives_a_copy_of_the_range_that_it_gathers_by():
    branches = {"then_branch": gathering("a"), "else_branch": gathering("b")}
    node = helper.make_node("If", ["c"], ["y", "places"], "if", **branches)
    kinds = {"y": TensorProto.FLOAT, "places": TensorProto.INT64}
    check(model_of([node], [helper.make_tensor_value_info(n, k, [None]) for n, k in kinds.items()]))


def test_so_does_a_model_and_its_outputs_keep_their_names():
    part = gathering("g")
    model = model_of(part.node, part.output)
    check(model)
    assert [value.name for value in model.graph.output] == ["g/y", "g/places"]


def test_a_range_that_is_only_given_stays_as_it_is():
    part = gathering("g")
    del part.node[1], part.output[0]
    model = model_of(part.node, part.output)
    give_copies_of_ranges(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Range"]
