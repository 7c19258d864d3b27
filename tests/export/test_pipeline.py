"""`export_onnx` writes a named, described, proven file, or none at all."""

import json
import threading

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from onnx_runs import Exported, random_weights, sequences

import keras_blocks as kb
from keras_blocks.contract import METADATA_KEY, Contract, TensorSpec
from keras_blocks.errors import ExportError, ParityError
from keras_blocks.export import ExportResult, export_onnx, lowers, onnx_node
from keras_blocks.export import pipeline as exporting
from keras_blocks.export.conversion.tf2onnx_driver import to_onnx
from keras_blocks.export.lowerings import registry
from keras_blocks.export.verification.padding import proven_signature

layers = keras.layers


def dense_model(units=3):
    x = keras.Input((4,), name="x")
    return random_weights(keras.Model(x, layers.Dense(units, name="y")(x)))


def tree_model():
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    nodes = kb.Embedding(50, 6, name="embedding")(tokens)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(5))([nodes, parents])
    outputs = {"label": kb.Softmax(name="s")(kb.Vanilla(3)(root)), "nodes": nodes}
    return random_weights(keras.Model({"tokens": tokens, "parents": parents}, outputs))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return Exported(tree_model(), tmp_path_factory.mktemp("tree") / "m.onnx", opset_version=17)


def test_the_result_tells_what_was_made_and_checked(tmp_path):
    path = tmp_path / "m.onnx"
    result = export_onnx(dense_model(), path)
    assert isinstance(result, ExportResult)
    assert result.filepath == str(path)
    assert result.op_counts == {"Add": 1, "MatMul": 1}
    assert result.size_bytes == path.stat().st_size
    assert result.parity.ok
    assert result.parity.filepath == str(path)
    assert "MatMul 1" in str(result)
    assert list(tmp_path.iterdir()) == [path]


def test_names_and_dims_are_those_of_keras(tree):
    # Keras flattens dicts by their sorted keys.
    assert tree.input_names == [
        "parents",
        "parents.row_splits",
        "tokens",
        "tokens.row_splits",
    ]
    assert tree.output_names == ["label", "nodes", "nodes.row_splits"]
    shapes = {node.name: node.shape for node in tree.session.get_inputs()}
    assert shapes["tokens"] == ["tokens.values"]
    assert shapes["tokens.row_splits"] == ["batch+1"]
    assert tree.session.get_outputs()[0].shape == ["batch", 3]
    assert tree.session.get_outputs()[1].shape == ["nodes.values", 6]


def test_free_axes_have_names_and_fixed_ones_sizes(tmp_path):
    x = keras.Input((None, 5, None, 2), name="x")
    exported = Exported(keras.Model(x, layers.ReLU(name="y")(x)), tmp_path / "m.onnx")
    assert exported.session.get_inputs()[0].shape == ["batch", "x.time", 5, "x.axis3", 2]
    assert exported.session.get_outputs()[0].shape == ["batch", "y.time", 5, "y.axis3", 2]


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((None, None, 3), ["x.height", "x.width", 3]),
        ((7, None, None, 3), [7, "x.height", "x.width", 3]),
        ((None, None, None, 3), ["x.time", "x.height", "x.width", 3]),
        ((None, 4, 3), ["x.time", 4, 3]),
        ((4, None, None), [4, "x.axis2", "x.axis3"]),
        ((None, None), ["x.time", "x.axis2"]),
    ],
    ids=str,
)
def test_the_free_axes_of_images_are_their_height_and_width(shape, dims):
    x = keras.Input(shape, name="x")
    (spec,) = proven_signature(keras.Model(x, layers.ReLU()(x))).contract.inputs
    assert list(spec.shape) == ["batch", *dims]


def test_the_metadata_holds_the_contract_and_the_versions(tree):
    facts = tree.session.get_modelmeta().custom_metadata_map
    assert Contract.from_json(facts[METADATA_KEY]) == proven_signature(tree.model).contract
    parents, tokens = Contract.from_json(facts[METADATA_KEY]).inputs
    assert (parents.minimum, parents.tree_of) == (-1, "tokens")
    assert (tokens.minimum, tokens.maximum) == (0, 49)
    assert facts["keras_blocks.opset"] == "17"
    assert facts["keras_blocks.keras"] == keras.__version__
    assert tree.proto.producer_name == "keras-blocks"


def test_a_tree_is_loops_over_levels(tree):
    # One over the bits of the depth; one over the levels, and one for small batches.
    assert tree.ops["Loop"] <= 3
    tokens = tf.ragged.constant([[1, 2, 3], [4], [], [5, 6]], dtype=tf.int32)
    parents = tf.ragged.constant([[2, 2, -1], [-1], [], [-1, 0]], dtype=tf.int32)
    tree.check({"tokens": tokens, "parents": parents})


@pytest.mark.parametrize("opset", [15, 16, 17, 18, 20])
def test_the_opset_can_be_chosen(opset, tmp_path):
    x = keras.Input((None, 6), name="x")
    h = layers.LayerNormalization()(layers.Bidirectional(layers.GRU(4, return_sequences=True))(x))
    model = random_weights(keras.Model(x, layers.Dense(3, activation="gelu")(h)))
    exported = Exported(model, tmp_path / "m.onnx", opset_version=opset)
    assert {entry.domain: entry.version for entry in exported.proto.opset_import} == {"": opset}
    exported.check(sequences(2, 5))


@pytest.mark.parametrize("opset", [14, 1000, 18.0, "18"])
def test_an_opset_out_of_range_is_refused(opset, tmp_path):
    with pytest.raises((ExportError, TypeError), match="opset"):
        export_onnx(dense_model(), tmp_path / "m.onnx", opset_version=opset)
    assert not list(tmp_path.iterdir())


def test_the_same_model_gives_the_same_bytes(tree, tmp_path):
    again = Exported(tree.model, tmp_path / "m.onnx", opset_version=17)
    assert again.proto.SerializeToString() == tree.proto.SerializeToString()


def test_equal_weights_are_stored_once_and_nothing_is_unused(tmp_path):
    shared = layers.Dense(5, name="shared")
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    model = random_weights(keras.Model([x, y], [shared(x), shared(y)]))
    exported = Exported(model, tmp_path / "m.onnx")
    assert len(exported.proto.graph.initializer) == 2
    used = {name for node in exported.proto.graph.node for name in node.input}
    assert {weight.name for weight in exported.proto.graph.initializer} <= used
    assert exported.output_names == ["shared", "shared_1"]
    exported.check([sequences(1, 3, 4)[0], sequences(1, 3, 4, seed=1)[0]])


def test_an_output_may_be_an_input_or_a_weight(tmp_path):
    class Constant(layers.Layer):
        def call(self, x):
            return tf.constant([[1.0, 2.0]])

    x = keras.Input((4,), name="x")
    model = keras.Model(x, [x, Constant(name="c")(x)])
    exported = Exported(model, tmp_path / "m.onnx")
    assert exported.input_names == ["x"]
    assert exported.output_names == ["x_1", "c"]
    exported.check(sequences(1, 3, 4)[0])


def test_a_wrong_file_is_not_left_and_the_older_one_survives(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    export_onnx(dense_model(), path)
    good = path.read_bytes()

    def nudged(*arguments):
        converted = to_onnx(*arguments)
        weight = converted.graph.initializer[0]
        values = onnx.numpy_helper.to_array(weight) + np.float32(0.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return converted

    monkeypatch.setattr(exporting, "to_onnx", nudged)
    with pytest.raises(ParityError) as caught:
        export_onnx(dense_model(), path)
    assert not caught.value.report.ok
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_does_not_load_is_refused_without_a_proof_too(tmp_path, monkeypatch):
    def broken(*arguments):
        converted = to_onnx(*arguments)
        converted.graph.node[0].op_type = "NoSuchOp"
        return converted

    monkeypatch.setattr(exporting, "to_onnx", broken)
    with pytest.raises(ExportError, match="onnxruntime does not load"):
        export_onnx(dense_model(), tmp_path / "m.onnx", verify=False)
    assert not list(tmp_path.iterdir())


def test_missing_folders_are_made_and_a_folder_is_no_file(tmp_path):
    target = tmp_path / "dense" / "1" / "model.onnx"
    export_onnx(dense_model(), target)
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(IsADirectoryError):
        export_onnx(dense_model(), tmp_path)


def test_a_refused_export_leaves_no_folder_that_it_made(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Lambda(tf.math.bessel_i0, output_shape=(4,))(x))
    (tmp_path / "there").mkdir()
    with pytest.raises(ExportError):
        export_onnx(model, tmp_path / "there" / "new" / "1" / "model.onnx")
    # A server would find a version without a file.
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def refused_models():
    x = keras.Input((4,), name="x")
    text = keras.Input((1,), dtype="string", name="text")

    def lambda_model(function):
        return keras.Model(x, layers.Lambda(function, output_shape=(4,))(x))

    def python(z):
        return tf.ensure_shape(tf.numpy_function(np.sin, [z], tf.float32), [None, 4])

    def singular_values(z):
        return z * tf.linalg.svd(tf.reshape(z, [-1, 2, 2]), compute_uv=False)[:, :1]

    return {
        "BesselI0": lambda_model(tf.math.bessel_i0),
        "Python code": lambda_model(python),
        "Svd": lambda_model(singular_values),
        "bfloat16": lambda_model(lambda z: tf.cast(tf.cast(z, tf.bfloat16), tf.float32)),
        "lookup table": keras.Model(text, layers.StringLookup(vocabulary=["a", "b"])(text)),
    }


@pytest.mark.parametrize("reason", ["BesselI0", "Python code", "Svd", "bfloat16", "lookup table"])
@pytest.mark.parametrize("verify", [True, False])
def test_what_has_no_onnx_form_is_refused_with_the_reason(reason, verify, tmp_path):
    with pytest.raises(ExportError, match=reason):
        export_onnx(refused_models()[reason], tmp_path / "m.onnx", verify=verify)
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_refused(tmp_path):
    for given in (None, layers.Dense(3)):
        with pytest.raises(TypeError, match="must be a keras"):
            export_onnx(given, tmp_path / "m.onnx")


def test_a_tree_in_half_precision_is_exported(tmp_path):
    words = keras.Input((None, 4), ragged=True, name="words")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    cell = kb.ChildSumTreeLSTMCell(3, dtype="mixed_float16")
    root = kb.TreeRecursive(cell, dtype="mixed_float16")([words, parents])
    model = keras.Model([words, parents], root)
    assert export_onnx(model, tmp_path / "m.onnx").parity.ok
    with pytest.raises(ExportError, match="Choose opset_version=16 or more"):
        export_onnx(model, tmp_path / "old.onnx", opset_version=15)


def test_what_an_assertion_says_is_left_out_with_it(tmp_path):
    def asserting(z):
        with tf.control_dependencies([tf.debugging.assert_greater(z, -9.0, "too small")]):
            return tf.identity(z)

    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Lambda(asserting, output_shape=(4,))(x))
    assert export_onnx(model, tmp_path / "m.onnx").parity.ok


@pytest.mark.parametrize("merge_mode", ["sum", None])
def test_both_directions_of_ragged_rows_are_merged_in_any_way(merge_mode, tmp_path):
    x = keras.Input((None, 6), ragged=True, name="x")
    both = layers.Bidirectional(kb.GRU(3, return_sequences=True), merge_mode=merge_mode)
    assert export_onnx(keras.Model(x, both(x)), tmp_path / "m.onnx").parity.ok


def test_a_model_that_does_not_run_says_why_in_the_words_of_the_layer(tmp_path):
    class Model(keras.Model):
        def call(self, inputs):
            return kb.GRU(3, unroll=True)(inputs)

    signature = [keras.InputSpec(shape=(None, 5, 4, 2), dtype="float32")]
    with pytest.raises(ExportError, match="expected ndim=3, found ndim=4"):
        export_onnx(Model(), tmp_path / "m.onnx", input_signature=signature)


def test_an_export_leaves_the_model_as_it_was(tmp_path):
    x = keras.Input((None, 6), name="x")
    model = keras.Model(x, kb.GRU(4)(layers.TimeDistributed(layers.Dense(6))(x)))
    before = model(sequences(2, 3)).numpy()
    weights = [weight.numpy() for weight in model.weights]
    export_onnx(model, tmp_path / "m.onnx")
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    np.testing.assert_array_equal(model(sequences(2, 3)), before)
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_failed_export_leaves_the_model_as_it_was(tmp_path):
    x = keras.Input((None, 6), name="x")
    model = keras.Model(x, layers.Lambda(tf.math.bessel_i0)(kb.GRU(4)(x)))
    with pytest.raises(ExportError):
        export_onnx(model, tmp_path / "m.onnx")
    assert not any("call" in vars(layer) for layer in model._flatten_layers())


def test_threads_can_export_one_model_at_once(tmp_path):
    x = keras.Input((None, 6), name="x")
    model = random_weights(keras.Model(x, kb.GRU(4)(x)))
    failures = []

    def export(number):
        try:
            export_onnx(model, tmp_path / f"{number}.onnx", verify=False)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=export, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    expected = model(sequences(2, 3)).numpy()
    for number in range(3):
        session = onnxruntime.InferenceSession(tmp_path / f"{number}.onnx")
        (got,) = session.run(None, {"x": sequences(2, 3).numpy()})
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_user_can_lower_a_layer(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_lowerings", dict(registry._lowerings))

    class Shrink(layers.Layer):
        def call(self, x):
            return tf.sign(x) * tf.nn.relu(tf.abs(x) - 0.5)

    class Grown(Shrink):
        pass

    @lowers(Shrink)
    def lower_shrink(layer):
        def call(x):
            spec = tf.TensorSpec(x.shape, x.dtype)
            return onnx_node("Shrink", [x], [spec], lambd=0.5, bias=0.5)[0]

        return call

    x = keras.Input((4,), name="x")
    model = keras.Model(x, [Shrink()(x), Grown()(x)])
    exported = Exported(model, tmp_path / "m.onnx")
    assert exported.ops["Shrink"] == 1
    exported.check(sequences(1, 3, 4)[0])


def test_a_second_lowering_or_converter_is_refused():
    with pytest.raises(ValueError, match=r"GRU is lowered by .*recurrent\.layers\.lower_recurrent"):
        registry.lowers(layers.GRU)(lambda layer: None)
    with pytest.raises(ValueError, match=r"Erfc is converted by .*erfc\.convert_erfc"):
        registry.converts("Erfc")(lambda context, node, name, args: None)
    with pytest.raises(TypeError, match="subclasses of keras"):
        registry.lowers(int)(lambda layer: None)


def test_an_onnx_node_outside_an_export_is_refused():
    with pytest.raises(ExportError, match="in an export only"):
        onnx_node("Relu", [tf.zeros([2])], [tf.TensorSpec([2])])


def test_the_contract_travels_as_plain_json():
    spec = TensorSpec("x", "float32", ("batch", 4))
    text = Contract((spec,), (spec,)).to_json()
    assert json.loads(text)["inputs"][0]["shape"] == ["batch", 4]
