"""Tables of numbers go into the file; those of strings are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

layers = keras.layers
KEYS = [12, 36, 1138, 42]
CODES = np.array([[12, 42, 7], [1138, -5, 36], [0, 0, 12]], "int64")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_oov_indices": 2},
        {"mask_token": 0},
        {"output_mode": "multi_hot"},
        {"output_mode": "count"},
        {"output_mode": "tf_idf", "idf_weights": [0.1, 0.2, 0.3, 0.4]},
    ],
    ids=str,
)
def test_an_integer_lookup_is_one_node(options, tmp_path):
    x = keras.Input((3,), dtype="int64", name="x")
    model = keras.Model(x, layers.IntegerLookup(vocabulary=KEYS, **options)(x))
    exported = Exported(model, tmp_path / "m.onnx")
    assert exported.ops["LabelEncoder"] == 1
    exported.check(CODES)


def test_indices_are_looked_up_the_other_way_too(tmp_path):
    x = keras.Input((3,), dtype="int64", name="x")
    model = keras.Model(x, layers.IntegerLookup(vocabulary=KEYS, invert=True)(x))
    (got,) = Exported(model, tmp_path / "m.onnx").run(np.array([[1, 4, 0], [2, 3, 9]]))
    np.testing.assert_array_equal(got, [[12, 42, -1], [36, 1138, -1]])


def test_a_table_of_floats_keeps_its_default_and_its_size(tmp_path):
    class Prices(layers.Layer):
        def __init__(self):
            super().__init__()
            pairs = tf.constant(KEYS, tf.int64), tf.constant([0.5, 1.5, 2.5, 3.5])
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(*pairs), -1.0
            )

        def call(self, codes):
            return self.table.lookup(codes)

        def compute_output_spec(self, codes):
            return keras.KerasTensor(codes.shape, "float32")

    x = keras.Input((3,), dtype="int64", name="x")
    exported = Exported(keras.Model(x, Prices()(x)), tmp_path / "m.onnx")
    (got,) = exported.run(CODES)
    np.testing.assert_array_equal(got, [[0.5, 3.5, -1], [2.5, -1, 1.5], [-1, -1, 0.5]])


def test_the_same_table_gives_the_same_bytes(tmp_path):
    keras.utils.clear_session()
    x = keras.Input((3,), dtype="int64", name="x")
    model = keras.Model(x, layers.IntegerLookup(vocabulary=KEYS)(x))
    first, second = (Exported(model, tmp_path / f"{i}.onnx").proto for i in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_a_table_of_strings_is_refused(tmp_path):
    x = keras.Input((3,), dtype="int64", name="x")
    words = layers.StringLookup(vocabulary=["a", "b"], invert=True)
    with pytest.raises(ExportError, match="lookup table of strings"):
        export_onnx(keras.Model(x, words(x)), tmp_path / "m.onnx")


def test_features_of_a_table_of_records_are_exported(tmp_path):
    generator = np.random.default_rng(0)
    records = {
        "size": generator.normal(size=20).astype("float32"),
        "kind": generator.integers(0, 5, 20),
        "price": generator.normal(size=20).astype("float32"),
    }
    space = keras.utils.FeatureSpace(
        features={
            "size": "float_normalized",
            "kind": keras.utils.FeatureSpace.integer_categorical(num_oov_indices=1),
            "price": keras.utils.FeatureSpace.float_discretized(num_bins=4),
        },
        output_mode="concat",
    )
    space.adapt(tf.data.Dataset.from_tensor_slices(records))
    model = keras.Model(dict(space.get_inputs()), space.get_encoded_features())
    exported = Exported(model, tmp_path / "m.onnx")
    given = {spec.name: tf.cast(records[spec.name][:6, None], spec.dtype) for spec in model.inputs}
    exported.check(given)
