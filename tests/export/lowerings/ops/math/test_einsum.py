"""Sums of products become products of matrices, and stay what they are where they are none."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, random_weights, sequences

layers = keras.layers

# Of two inputs (batch, 3, 4, 5) and (batch, 3, 4, 5) or what the letters ask for.
SIZES = {"b": None, "c": 3, "d": 4, "e": 5, "f": 6, "t": None, "g": 2}
PRODUCTS = [
    "btde,btfe->btdf",
    "bcde,bcfe->bcdf",
    "bcde,bcfe->bcfd",
    "bced,bfcd->bcef",
    "btd,bed->bte",
    "btd,bed->bet",
    "bcd,bde->bce",
    "dbc,dce->dbe",
    "bd,bd->b",
    "bcd,bd->bc",
]
NO_PRODUCTS = ["bcc,bcd->bd", "bcd,be->bce"]


def model_of(equation):
    left, right = equation.partition("->")[0].split(",")
    inputs = []
    for name, letters in (("left", left), ("right", right)):
        shape = [SIZES[letter] for letter in letters]
        inputs.append(keras.Input(batch_shape=shape, name=name))
    y = layers.Lambda(lambda z: tf.einsum(equation, *z))(inputs)
    return keras.Model(inputs, y)


def values_of(equation, batch=3, time=7):
    sizes = {**SIZES, "b": batch, "t": time}
    generator = np.random.default_rng(0)
    sides = equation.partition("->")[0].split(",")
    return [
        tf.constant(generator.normal(size=[sizes[c] for c in side]).astype("float32"))
        for side in sides
    ]


@pytest.mark.parametrize("equation", PRODUCTS)
def test_a_sum_of_products_is_a_product_of_matrices(equation, tmp_path):
    exported = Exported(model_of(equation), tmp_path / "m.onnx")
    assert "Einsum" not in exported.ops
    for batch in (3, 1):
        exported.check(values_of(equation, batch))


@pytest.mark.parametrize("equation", NO_PRODUCTS)
def test_a_letter_twice_or_in_one_part_alone_is_left_to_onnx(equation, tmp_path):
    exported = Exported(model_of(equation), tmp_path / "m.onnx")
    assert exported.ops["Einsum"] == 1
    exported.check(values_of(equation))


def test_a_size_that_would_have_to_be_known_is_left_to_onnx(tmp_path):
    # The summed letters would become one axis, of which neither the one nor the other is known.
    exported = Exported(model_of("btd,btd->bd"), tmp_path / "m.onnx")
    exported.check(values_of("btd,btd->bd"))
    exported = Exported(model_of("dbt,ebt->de"), tmp_path / "n.onnx")
    assert exported.ops["Einsum"] == 1
    exported.check(values_of("dbt,ebt->de"))


DENSE = {
    "several_outputs": ("abc,cde->abde", (None, 2, 3)),
    "several_inputs": ("abcd,cde->abe", (None, 5)),
    "dots": ("...x,xy->...y", 5),
    "transposed": ("abc,dc->abd", (None, 5)),
}


@pytest.mark.parametrize(("equation", "shape"), DENSE.values(), ids=DENSE)
def test_a_dense_layer_over_several_axes_is_one_product(equation, shape, tmp_path):
    ahead = (None, 3, 4) if equation.startswith("abcd") else (None, 6)
    x = keras.Input(ahead, name="x")
    layer = layers.EinsumDense(equation, output_shape=shape)
    exported = Exported(random_weights(keras.Model(x, layer(x))), tmp_path / "m.onnx")
    assert exported.ops["MatMul"] == 1
    assert "Einsum" not in exported.ops
    assert "Transpose" not in exported.ops
    x = tf.reshape(sequences(2, 5, 12), (2, 5, 3, 4)) if len(ahead) == 3 else sequences(2, 5)
    exported.check(x)


ATTENTIONS = {
    "multi_head": lambda x: layers.MultiHeadAttention(2, 4)(x, x),
    "other_value_size": lambda x: layers.MultiHeadAttention(2, 4, value_dim=3)(x, x),
    "causal": lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "grouped": lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x),
    "cross": lambda x: layers.MultiHeadAttention(2, 4)(x[:, :2], x),
    "scores": lambda x: layers.MultiHeadAttention(2, 4)(x, x, return_attention_scores=True),
    "two_axes": lambda x: layers.MultiHeadAttention(2, 3, attention_axes=(1, 2))(
        layers.Reshape((-1, 2, 3))(x), layers.Reshape((-1, 2, 3))(x)
    ),
}


@pytest.mark.parametrize("attention", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_is_made_of_products_of_matrices(attention, tmp_path):
    x = keras.Input((5, 6), name="x")
    exported = Exported(random_weights(keras.Model(x, attention(x))), tmp_path / "m.onnx")
    assert "Einsum" not in exported.ops
    exported.check(sequences(2, 5))
    exported.check(sequences(1, 5))


def test_a_row_of_which_everything_is_masked_gives_what_keras_gives(tmp_path):
    x, mask = keras.Input((None, 6), name="x"), keras.Input((None,), dtype="bool", name="mask")
    y = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=mask[:, None, :])
    exported = Exported(random_weights(keras.Model([x, mask], y)), tmp_path / "m.onnx")
    keep = tf.constant([[True, False, True], [False, False, False]])
    exported.check([sequences(2, 3), keep])
