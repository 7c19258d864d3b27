"""Functions keep the precision that the model has, and run in each."""

import keras
import numpy as np
import pytest
from onnx_runs import Exported, images

from keras_blocks.errors import ExportError

# Some roundings of each.
ROUNDING = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_logarithm_is_as_exact_as_its_dtype(dtype, tmp_path):
    x = keras.Input((5,), dtype=dtype, name="x")
    exported = Exported(keras.Model(x, keras.ops.log(x)), tmp_path / "m.onnx")
    values = np.linspace(0.5, 9, 15).reshape(3, 5).astype(dtype)
    (got,) = exported.run(values)
    expected = np.log(values.astype("float64"))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING[dtype] * expected.max())


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_logarithm_of_one_and_more_keeps_the_digits_of_what_is_more(dtype, tmp_path):
    x = keras.Input((5,), dtype=dtype, name="x")
    exported = Exported(keras.Model(x, keras.ops.log1p(x)), tmp_path / "m.onnx")
    values = np.array([[0.0, 1e-3, -0.5, 3e4, np.inf], [-1e-3, 1e-2, 1.0, -1.0, 7.0]], dtype)
    if dtype != "float16":
        values[0, 1] = 1e-12  # of which 1 + x keeps nothing in float32
    (got,) = exported.run(values)
    with np.errstate(divide="ignore"):
        expected = np.log1p(values.astype("float64"))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=ROUNDING[dtype])


@pytest.mark.parametrize("question", ["isfinite", "isinf", "isnan"])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_what_is_not_finite_is_found(dtype, question, tmp_path):
    x = keras.Input((5,), dtype=dtype, name="x")
    model = keras.Model(x, getattr(keras.ops, question)(x))
    values = np.array([[0.0, 1.0, np.inf, -np.inf, np.nan]], dtype)
    (got,) = Exported(model, tmp_path / "m.onnx").run(values)
    np.testing.assert_array_equal(got, getattr(np, question)(values))


def test_attention_over_two_axes_runs_in_half_precision(tmp_path):
    x = keras.Input((3, 4, 6), name="x")
    layer = keras.layers.MultiHeadAttention(2, 4, attention_axes=(1, 2), dtype="mixed_float16")
    exported = Exported(keras.Model(x, layer(x, x)), tmp_path / "m.onnx")
    exported.check(images(2, 3, 4, 6), tolerance=1e-2)


def test_a_model_in_float8_is_refused_with_what_to_do(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)])
    model.layers[-1].quantize("float8")
    with pytest.raises(ExportError, match=r"float8_e.*Export the model as it was before"):
        Exported(model, tmp_path / "m.onnx")
