"""The opset that a file needs, by what is in it, and graphs brought down to one."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx import TensorProto, helper, numpy_helper
from onnx_runs import Exported, images, ragged, random_weights, sequences
from opset_models import encoder, graph_of, image_model, masked, run, spectrum

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx, onnx_node
from keras_blocks.export.lowerings import registry
from keras_blocks.export.onnx_io.graphs import op_counts
from keras_blocks.export.passes.opset.least import lower
from keras_blocks.export.passes.opset.newest import NEWEST_OPSET, opset_of

layers = keras.layers


def of(*parts, shape=(None, 6), dtype="float32"):
    x = keras.Input(shape, dtype=dtype, name="x")
    h = x
    for part in parts:
        h = part(h)
    return keras.Model(x, h)


def ragged_rnn():
    x = keras.Input((None, 6), ragged=True, name="x")
    return keras.Model(x, kb.GRU(4)(x))


LEAST = {
    "dense": (lambda: of(layers.Dense(3)), 17, sequences(2, 5)),
    "images": (lambda: image_model()[0], 17, images(2, 9, 8, 4)),
    "spectrum": (lambda: spectrum()[0], 17, sequences(1, 2, 64)[0]),
    "masked": (masked, 17, np.array([[1, 0, 3, 4, 0], [0, 2, 5, 1, 1]], "int32")),
    "ragged": (ragged_rnn, 17, ragged([3, 1, 4])),
    "layer_norm": (lambda: of(layers.LayerNormalization()), 17, sequences(2, 5)),
    "largest": (lambda: of(layers.GlobalMaxPooling1D()), 17, sequences(2, 5)),
    "gelu": (lambda: of(layers.Dense(4, activation="gelu")), 20, sequences(2, 5)),
    "rms_norm": (lambda: of(layers.RMSNormalization()), 23, sequences(2, 5)),
    "encoder": (lambda: encoder()[0], 23, sequences(2, 5)),
}


@pytest.mark.parametrize("name", [n for n, case in LEAST.items() if case[1] <= NEWEST_OPSET])
def test_the_default_is_the_lowest_opset_with_no_more_nodes_than_the_newest(name, tmp_path):
    make, wanted, inputs = LEAST[name]
    model = random_weights(make())
    exported = Exported(model, tmp_path / "m.onnx")
    assert opset_of(exported.proto) == wanted
    # The version of the format of the onnx release that brought the opset.
    released = {row[2]: row[1] for row in helper.VERSION_TABLE}
    assert exported.proto.ir_version == released[wanted]
    newest = Exported(model, tmp_path / "newest.onnx", opset_version=NEWEST_OPSET)
    assert exported.ops == newest.ops
    exported.check(inputs)


def test_below_the_default_the_price_is_told_and_nowhere_else(tmp_path):
    model = of(layers.LayerNormalization(), layers.Dense(4, activation="gelu"))

    def exported(opset):
        return export_onnx(model, tmp_path / "m.onnx", opset_version=opset, verify=False)

    default = exported(None)
    assert (default.opset_version, default.price) == (20, None)
    assert "loads in onnxruntime 1.17 and later" in str(default)
    assert default.to_dict()["loads_in"] == "onnxruntime 1.17 and later"
    few = sum(default.op_counts.values())
    for opset in (16, 18):
        result = exported(opset)
        many = sum(result.op_counts.values())
        assert many > few
        assert f"the chosen opset costs {many} nodes for {few}: opset 20, the default" in str(
            result
        )
        assert result.to_dict()["price"]["fewest"] == few
    assert exported(20).price is None
    assert exported(NEWEST_OPSET).price is None
    plain = export_onnx(of(layers.Dense(2)), tmp_path / "m.onnx", opset_version=15, verify=False)
    assert plain.price is None


def test_the_file_says_which_runtimes_load_it(tmp_path):
    facts = Exported(of(layers.Dense(2)), tmp_path / "m.onnx").session.get_modelmeta()
    assert facts.custom_metadata_map["keras_blocks.opset"] == "17"
    assert facts.custom_metadata_map["keras_blocks.loads_in"] == "onnxruntime 1.12 and later"


class Parts(layers.Layer):
    """The first third of the features, or what is left of uneven parts."""

    def call(self, x):
        return x[..., :3]


@pytest.mark.parametrize(("features", "wanted"), [(6, 17), (5, 18)])
def test_parts_that_are_not_equal_need_the_opset_that_has_them(
    features, wanted, tmp_path, monkeypatch
):
    monkeypatch.setattr(registry, "_lowerings", dict(registry._lowerings))

    @registry.lowers(Parts)
    def lower_parts(layer):
        def call(x):
            specs = [tf.TensorSpec([None, size], x.dtype) for size in (3, features - 3)]
            return onnx_node("Split", [x], specs, axis=-1, num_outputs=2)[0]

        return call

    exported = Exported(of(Parts(), shape=(features,)), tmp_path / "m.onnx")
    assert opset_of(exported.proto) == wanted
    exported.check(sequences(1, 4, features)[0])


REDUCTIONS = {
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceSumSquare": lambda x, **options: np.sum(x * x, **options),
}


def reduction(op_type, axes, kind=TensorProto.FLOAT, **attributes):
    """A reduction as it has been called since opset 18; `axes` is an array, a name or None."""
    inputs = ["x"] if axes is None else ["x", "axes"]
    node = helper.make_node(op_type, inputs, ["y"], "n", **attributes)
    values = [helper.make_tensor_value_info("x", kind, ["a", "b", "c"])]
    constants = []
    if isinstance(axes, str):
        values.append(helper.make_tensor_value_info("axes", TensorProto.INT64, [1]))
    elif axes is not None:
        constants.append(numpy_helper.from_array(np.array(axes, "int64"), "axes"))
    kept = attributes.get("keepdims", 1)
    rank = 3 if kept else 3 - len(set(axes or range(3)))
    result = helper.make_tensor_value_info("y", kind, [None] * rank)
    graph = helper.make_graph([node], "g", values, [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.mark.parametrize("op_type", REDUCTIONS)
@pytest.mark.parametrize("axes", [[1], [0, -1], [], None])
def test_the_axes_of_a_reduction_become_an_attribute(op_type, axes):
    model = reduction(op_type, axes, keepdims=0)
    lower(model, None)
    onnx.checker.check_model(model, full_check=True)
    assert (opset_of(model), model.ir_version) == (17, 8)
    assert not model.graph.initializer
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    wanted = REDUCTIONS[op_type](x, axis=tuple(axes) if axes else None)
    np.testing.assert_allclose(run(model, {"x": x}), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "wanted"),
    [
        (lambda: reduction("ReduceMax", "computed"), 18),
        (lambda: reduction("ReduceMax", [], noop_with_empty_axes=1), 18),
        (lambda: reduction("ReduceMax", [1], TensorProto.BOOL), 20),
        (lambda: reduction("ReduceMax", [1], TensorProto.INT32), 17),
        (lambda: graph_of("IsInf", {"x": [2]}, 22), 17),
        (lambda: graph_of("Gelu", {"x": [2]}, 22), 20),
        (lambda: graph_of("Swish", {"x": [2]}, 24), 24),
        (lambda: graph_of("AveragePool", {"x": [1, 1, 9]}, 22, 3, kernel_shape=[2]), 17),
        (
            lambda: graph_of(
                "AveragePool", {"x": [1, 1, 9]}, 22, 3, kernel_shape=[2], dilations=[2]
            ),
            19,
        ),
        (lambda: graph_of("Pad", {"x": [2], "pads": [2]}, 23), 17),
    ],
)
def test_a_node_goes_as_low_as_its_inputs_attributes_and_types_allow(model, wanted):
    made = model()
    if made.graph.node[0].op_type == "Pad":
        made.graph.input[1].type.tensor_type.elem_type = TensorProto.INT64
    if made.graph.node[0].op_type == "IsInf":
        made.graph.output[0].type.tensor_type.elem_type = TensorProto.BOOL
    lower(made, None)
    assert opset_of(made) == wanted
    onnx.checker.check_model(made, full_check=True)


def test_half_precision_holds_a_node_at_the_opset_that_takes_it():
    node = helper.make_node("IsInf", ["x"], ["y"], "n")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.BOOL, ["n"])
    graph = helper.make_graph([node], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)])
    lower(model, None)
    assert opset_of(model) == 20


def test_a_node_in_a_branch_counts_and_is_brought_down_too():
    def branch(op_type, name):
        axes = numpy_helper.from_array(np.array([0], "int64"), f"{name}/axes")
        node = helper.make_node(op_type, ["x", axes.name], [name], f"n_{name}", keepdims=0)
        result = helper.make_tensor_value_info(name, TensorProto.FLOAT, [])
        return helper.make_graph([node], name, [], [result], [axes])

    def model(other):
        node = helper.make_node(
            "If", ["c"], ["y"], "if", then_branch=branch("ReduceMax", "a"), else_branch=other
        )
        values = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
        graph = helper.make_graph([node], "g", values, [result])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])

    lowered = model(branch("ReduceMin", "b"))
    lower(lowered, None)
    assert opset_of(lowered) == 17
    x = np.array([3, -1, 2], "float32")
    assert run(lowered, {"x": x, "c": np.array(True)}) == 3
    assert run(lowered, {"x": x, "c": np.array(False)}) == -1

    late = helper.make_node("Mish", ["x"], ["m"])
    kept = model(branch("ReduceMin", "b"))
    kept.graph.node[0].attribute[1].g.node.insert(0, late)
    lower(kept, None)
    assert opset_of(kept) == 18


@pytest.mark.parametrize(("axis", "back"), [(1, 1), (2, 2)])
def test_the_axis_of_a_fourier_transform_becomes_an_attribute_again(axis, back):
    model = graph_of("DFT", {"x": [2, 3, 4, 1]}, 22, rank=4)
    model.graph.initializer.append(numpy_helper.from_array(np.array(axis, "int64"), "axis"))
    model.graph.node[0].input.extend(["", "axis"])
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 1)).astype("float32")
    lower(model, None)
    assert opset_of(model) == 17
    got = run(model, {"x": x})
    np.testing.assert_allclose(
        got[..., 0] + 1j * got[..., 1], np.fft.fft(x[..., 0], axis=back), atol=1e-4
    )


@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_the_modes_of_a_grid_sample_get_their_old_names(mode):
    shapes = {"x": [1, 2, 5, 5], "grid": [1, 3, 3, 2]}
    model = graph_of("GridSample", shapes, 20, rank=4, mode=mode)
    generator = np.random.default_rng(0)
    feeds = {name: generator.uniform(-1, 1, s).astype("float32") for name, s in shapes.items()}
    before = run(model, feeds)
    lower(model, None)
    assert opset_of(model) == 17
    np.testing.assert_allclose(run(model, feeds), before, atol=1e-6)


def test_an_opset_that_lacks_an_operator_is_refused_with_the_one_that_has_it():
    model = graph_of("Gelu", {"x": [2]}, 22)
    with pytest.raises(ExportError, match=r"node 'n' is a Gelu .* since opset 20. Choose opset_v"):
        lower(model, 18)


def test_the_graph_of_seventeen_is_the_one_of_the_default(tmp_path):
    model = random_weights(image_model()[0])
    files = [
        Exported(model, tmp_path / f"{opset}.onnx", opset_version=opset).proto
        for opset in (None, 17)
    ]
    assert op_counts(files[0]) == op_counts(files[1])
    assert files[0] == files[1]


def test_onnxruntime_itself_refuses_what_the_table_says_it_does_not_load():
    model = graph_of("Relu", {"x": [2]}, NEWEST_OPSET)
    lower(model, None)
    assert opset_of(model) == 17
    assert run(model, {"x": np.array([-1, 2], "float32")}).tolist() == [0, 2]
    model.opset_import[0].version = 99
    with pytest.raises(Exception, match="opset"):
        onnxruntime.InferenceSession(model.SerializeToString())
