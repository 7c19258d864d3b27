"""Positions, by a plain loop of the formula: a ragged row begins anew."""

import math

import numpy as np
import pytest
import tensorflow as tf

import keras_blocks as kb

FLOAT32 = 1e-5  # sines of float32 angles


def ragged(lengths, width):
    values = np.ones((sum(lengths), width), "float32")
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def wave(place, feature, features, longest):
    angle = place / longest ** (2 * (feature // 2) / features)
    return math.cos(angle) if feature % 2 else math.sin(angle)


@pytest.mark.parametrize("features", [1, 4, 5])
@pytest.mark.parametrize("start", [0, 3])
def test_sine_positions_are_waves_of_growing_length(features, start):
    layer = kb.SinePositionEncoding(max_wavelength=100)
    expected = np.array(
        [[wave(t + start, f, features, 100) for f in range(features)] for t in range(7)]
    )
    for y in layer(np.zeros((2, 7, features), "float32"), start_index=start):
        np.testing.assert_allclose(y, expected, atol=FLOAT32)
    lengths = [3, 0, 7, 1]
    rows = layer(ragged(lengths, features), start_index=start)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(rows[row], expected[:length], atol=FLOAT32)


def test_late_places_differ_in_half_precision_too():
    y = kb.SinePositionEncoding(dtype="mixed_float16")(np.zeros((1, 5000, 2), "float16"))
    assert y.dtype == "float16"
    np.testing.assert_allclose(y[0, :, 0], np.sin(np.arange(5000)), atol=1e-3)  # 11 bits


def test_trained_positions_are_the_rows_of_a_table():
    layer = kb.PositionEmbedding(6)
    y = layer(np.zeros((2, 4, 3), "float32"), start_index=1)
    table = layer.position_embeddings.numpy()
    assert table.shape == (6, 3)
    np.testing.assert_array_equal(y, [table[1:5]] * 2)
    rows = layer(ragged([3, 0, 6], 3))
    assert rows.row_lengths().numpy().tolist() == [3, 0, 6]
    np.testing.assert_array_equal(rows.values, np.concatenate([table[:3], table]))


def test_what_does_not_fit_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match="not in"):
        kb.PositionEmbedding(2)(ragged([3], 3))
    with pytest.raises(ValueError, match="sequence_length must be a positive int"):
        kb.PositionEmbedding(0)
    with pytest.raises(ValueError, match=r"must be \(batch, ..., time, features\)"):
        kb.SinePositionEncoding()(np.zeros((2, 3)))
