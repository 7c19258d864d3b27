"""`quantize` of the units, alone and wherever they are lifted."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_blocks as kb

INT8 = 0.03  # of the largest value: 8 bits of weights and of inputs, over two layers
SAME_SUMS = 1e-6

X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
TOKENS = np.random.default_rng(0).integers(0, 9, (2, 6)).astype("int32")
ROWS = tf.RaggedTensor.from_tensor(X, lengths=[4, 6])
TREES = [ROWS, tf.ragged.constant([[-1, 0, 0, 1], [-1, 0, 0, 1, 1, 2]], dtype="int32")]


def shared():
    one = kb.Vanilla(4)
    return kb.Stacked([layers.Dense(4), one, one])


CASES = {
    "vanilla": (lambda: kb.Vanilla(3), X, 1),
    "vanilla ragged": (lambda: kb.Vanilla(3), ROWS, 1),
    "embedding": (lambda: kb.Embedding(9, 4), TOKENS, 1),
    "embedding ragged": (
        lambda: kb.Embedding(9, 4), tf.RaggedTensor.from_tensor(TOKENS, lengths=[4, 6]), 1,
    ),
    "stacked": (
        lambda: kb.Stacked([kb.Embedding(9, 4, mask_zero=True), kb.Vanilla(3), kb.GRU(3)]),
        TOKENS,
        2,
    ),
    "shared": (shared, X, 2),
    "convolution": (lambda: kb.Convolution(kb.Vanilla(3), 3), X, 1),
    "recurrence": (lambda: kb.Recurrence(kb.Vanilla(3), return_sequences=True), ROWS, 1),
    "bidirectional": (lambda: layers.Bidirectional(kb.Recurrence(kb.Vanilla(3))), X, 2),
    "trees": (
        lambda: kb.TreeRecursive(kb.Vanilla(3), direction="both", return_nodes=True), TREES, 2,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "x", "tables"), CASES.values(), ids=CASES)
def test_a_quantized_model_computes_nearly_the_same_and_is_saved(make, x, tables, tmp_path):
    inputs = keras.tree.map_structure(
        lambda part: keras.Input(
            (None, *part.shape[2:]), dtype=part.dtype, ragged=isinstance(part, tf.RaggedTensor)
        ),
        x,
    )
    model = keras.Model(inputs, make()(inputs))
    before = _values(model(x))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of layers that Keras cannot quantize
        model.quantize("int8")
    assert sum(weight.dtype == "int8" for weight in model.weights) == tables
    after = _values(model(x))
    assert np.abs(after - before).max() < INT8 * np.abs(before).max()
    assert np.any(after != before)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_allclose(_values(loaded(x)), after, rtol=SAME_SUMS, atol=SAME_SUMS)


def _values(y):
    return np.asarray(getattr(y, "values", y))


def test_a_subclass_is_quantized_only_when_it_says_so():
    class Twice(kb.Vanilla):
        def call(self, inputs):
            return 2 * super().call(inputs)

    layer = Twice(3)
    layer(X)
    with pytest.raises(NotImplementedError, match="Twice"):
        layer.quantize("int8")
    layer.quantize("int8", type_check=False)
