"""Categories as vectors."""

import keras
import numpy as np
import pytest
from onnx_runs import Exported

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx


def model_of(shape=(4,), **options):
    ids = keras.Input(shape, dtype="int64", name="ids")
    return keras.Model(ids, keras.layers.CategoryEncoding(6, **options)(ids))


@pytest.mark.parametrize("output_mode", ["one_hot", "multi_hot", "count"])
def test_a_dense_encoding_gives_the_same(output_mode, tmp_path):
    exported = Exported(model_of(output_mode=output_mode), tmp_path / "m.onnx")
    exported.check(np.array([[1, 2, 2, 5], [0, 3, 4, 4], [5, 5, 5, 5]]))


def test_a_sparse_encoding_is_refused_with_the_way_out(tmp_path):
    with pytest.raises(ExportError, match="Build it with sparse=False"):
        export_onnx(model_of(output_mode="multi_hot", sparse=True), tmp_path / "m.onnx")


def test_an_encoding_of_unknown_rank_is_refused_with_the_way_out(tmp_path):
    ids = keras.Input((None,), dtype="int64", name="ids")
    model = keras.Model(ids, keras.layers.CategoryEncoding(6, "one_hot")(ids[:, 1:]))
    with pytest.raises(ExportError, match="Give the axis a size"):
        export_onnx(model, tmp_path / "m.onnx")


def test_of_a_free_number_of_categories_a_single_one_is_refused(tmp_path):
    exported = Exported(model_of((None,), output_mode="one_hot"), tmp_path / "m.onnx")
    exported.check(np.array([[1, 2], [0, 3], [5, 5]]))
    with pytest.raises(Exception, match="axis_1_is_at_least_2"):
        exported.run(np.array([[1], [0]]))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_categories_of_a_batch_may_be_one(batch, tmp_path):
    exported = Exported(model_of((), output_mode="one_hot"), tmp_path / "m.onnx")
    exported.check(np.arange(batch))
