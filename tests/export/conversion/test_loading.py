"""A model is exported from where it is stored, as it is from memory."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import random_weights

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export import check_parity, export_onnx

layers = keras.layers


def functional():
    x = keras.Input((None, 6), name="x")
    outputs = {"a": layers.Dense(3, activation="gelu")(layers.LSTM(4)(x)), "b": kb.Tanh()(x)}
    return random_weights(keras.Model(x, outputs))


class Doubled(keras.Model):
    def call(self, x):
        return 2 * x


def ragged():
    ids = keras.Input((None,), dtype="int32", ragged=True, name="ids")
    return random_weights(keras.Model(ids, kb.GRU(3, name="y")(kb.Embedding(9, 4)(ids))))


@pytest.mark.parametrize("make", [functional, ragged])
def test_a_keras_file_is_exported(make, tmp_path):
    model = make()
    model.save(tmp_path / "m.keras")
    result = export_onnx(tmp_path / "m.keras", tmp_path / "m.onnx", verify="fast")
    assert result.parity.ok
    assert check_parity(tmp_path / "m.keras", tmp_path / "m.onnx", verify="fast").ok


def test_a_model_rebuilt_from_weights_alone_is_exported(tmp_path):
    functional().save_weights(tmp_path / "m.weights.h5")
    rebuilt = functional()
    rebuilt.load_weights(tmp_path / "m.weights.h5")
    assert export_onnx(rebuilt, tmp_path / "m.onnx", verify="fast").parity.ok


def test_a_folder_that_keras_exported_is_exported(tmp_path):
    model = functional()
    model.export(tmp_path / "saved", verbose=False)
    result = export_onnx(str(tmp_path / "saved"), tmp_path / "m.onnx", verify="fast")
    assert result.parity.ok
    assert [spec.shape for spec in result.contract.inputs] == [("batch", "x.time", 6)]
    assert {spec.name for spec in result.contract.outputs} == {"a", "b"}
    assert check_parity(model, tmp_path / "m.onnx", verify="fast").ok


def test_a_saved_function_is_exported_with_its_table_and_its_names(tmp_path):
    class Priced(tf.Module):
        def __init__(self):
            super().__init__()
            self.scale = tf.Variable([[1.0], [2.0]])
            pairs = tf.constant([5, 7], tf.int64), tf.constant([10, 30], tf.int64)
            initializer = tf.lookup.KeyValueTensorInitializer(*pairs)
            self.table = tf.lookup.StaticHashTable(initializer, 0)

        @tf.function
        def __call__(self, sizes, codes):
            return {"scaled": sizes @ self.scale, "price": self.table.lookup(codes)}

    module = Priced()
    sizes = tf.TensorSpec([None, 2], name="sizes")
    signature = module.__call__.get_concrete_function(
        sizes, tf.TensorSpec([None], tf.int64, name="codes")
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=signature)
    result = export_onnx(tmp_path / "saved", tmp_path / "m.onnx", verify="fast")
    assert result.parity.ok
    assert [spec.name for spec in result.contract.inputs] == ["codes", "sizes"]


def test_a_folder_that_has_lost_its_trees_is_refused_with_the_reason(tmp_path):
    tokens, parents = (
        keras.Input((None,), dtype="int32", ragged=True, name=name) for name in ("x", "parents")
    )
    roots = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(3))([kb.Embedding(9, 4)(tokens), parents])
    model = keras.Model([tokens, parents], roots)
    model.export(tmp_path / "saved", verbose=False)
    with pytest.raises(ExportError, match=r"lost that its inputs are ragged: export the .keras"):
        export_onnx(tmp_path / "saved", tmp_path / "m.onnx")


def test_a_layer_around_a_saved_model_is_exported(tmp_path):
    functional().export(tmp_path / "saved", verbose=False)
    x = keras.Input((None, 6), name="x")
    model = keras.Model(x, layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve")(x))
    assert export_onnx(model, tmp_path / "m.onnx", verify="fast").parity.ok


def test_what_is_no_model_is_refused_with_the_reason(tmp_path):
    target = tmp_path / "m.onnx"
    with pytest.raises(FileNotFoundError, match="There is no model at"):
        export_onnx(tmp_path / "nothing.keras", target)
    (tmp_path / "text.keras").write_text("no archive")
    with pytest.raises(ExportError, match="cannot be loaded as a Keras model"):
        export_onnx(tmp_path / "text.keras", target)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match="cannot be loaded as a SavedModel"):
        export_onnx(tmp_path / "empty", target)
    tf.saved_model.save(tf.Module(), str(tmp_path / "bare"))
    with pytest.raises(ExportError, match="has no signature, which says what it takes"):
        export_onnx(tmp_path / "bare", target)
    assert not target.exists()


def test_a_file_of_layers_that_are_not_known_says_what_to_do(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2), Doubled()])
    model.save(tmp_path / "m.keras")
    with pytest.raises(ExportError, match=r"Could not locate class 'Doubled'. Import the code"):
        export_onnx(tmp_path / "m.keras", tmp_path / "m.onnx")


def test_a_model_that_was_never_called_is_exported(tmp_path):
    signature = [keras.InputSpec(shape=(None, 3), dtype="float32")]
    result = export_onnx(Doubled(), tmp_path / "m.onnx", input_signature=signature, verify="fast")
    assert result.parity.ok
    np.testing.assert_equal(len(result.contract.inputs), 1)


class TwoWays(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def double(self, x):
        return {"y": 2 * x}

    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
    def halve(self, x):
        return {"y": x / 2}


def test_a_signature_is_chosen_by_name(tmp_path):
    module, folder, file = TwoWays(), tmp_path / "saved", tmp_path / "m.onnx"
    signatures = {"double": module.double, "halve": module.halve}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    with pytest.raises(ExportError, match=r"signatures \['double', 'halve'\]. Choose one"):
        export_onnx(folder, file)
    with pytest.raises(ExportError, match=r"no signature 'other'; it has \['double', 'halve'\]"):
        export_onnx(folder, file, signature_key="other")
    assert export_onnx(folder, file, signature_key="halve", verify="fast").parity.ok
    assert check_parity(folder, file, signature_key="halve", verify="fast").ok
    assert not check_parity(folder, file, signature_key="double", verify="fast").ok


def test_a_signature_is_for_a_folder(tmp_path):
    with pytest.raises(ValueError, match="is for the path of a SavedModel"):
        export_onnx(functional(), tmp_path / "m.onnx", signature_key="serving_default")


def test_a_file_with_python_code_says_how_to_load_it(tmp_path):
    x = keras.Input((4,))
    keras.Model(x, layers.Lambda(lambda t: 2 * t)(x)).save(tmp_path / "m.keras")
    with pytest.raises(ExportError, match=r"Lambda.*safe_mode=False"):
        export_onnx(tmp_path / "m.keras", tmp_path / "m.onnx")
