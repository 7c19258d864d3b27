"""Small matrices are inverted, solved and decomposed; large ones are refused with the reason."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

A = images(3, 5, 5).numpy()
B = images(3, 5, 2, seed=1).numpy()
SQUARES = A @ A.transpose(0, 2, 1) + np.eye(5, dtype="float32")
TOLERANCE = 2e-4


def test_solutions_are_those_of_numpy(tmp_path):
    def every(a, s, b):
        sign, log = keras.ops.slogdet(a)
        lower = tf.linalg.cholesky(s)
        return [
            *(tf.linalg.inv(a), tf.linalg.solve(a, b), tf.linalg.solve(a, b, adjoint=True)),
            *(tf.linalg.det(a), sign, log, lower),
            tf.linalg.triangular_solve(lower, b),
            tf.linalg.triangular_solve(lower, b, adjoint=True),
            tf.linalg.triangular_solve(a, b, lower=False),
        ]

    model = function_model(every, (5, 5), (5, 5), (5, 2))
    got = Exported(model, tmp_path / "m.onnx").run([A, SQUARES, B])
    solve, lower = np.linalg.solve, np.linalg.cholesky(SQUARES)
    expected = [
        *(np.linalg.inv(A), solve(A, B), solve(A.transpose(0, 2, 1), B)),
        *(np.linalg.det(A), *np.linalg.slogdet(A), lower),
        *(solve(lower, B), solve(lower.transpose(0, 2, 1), B), solve(np.triu(A), B)),
    ]
    for have, want in zip(got, expected, strict=True):
        np.testing.assert_allclose(have, want, rtol=TOLERANCE, atol=TOLERANCE * np.abs(want).max())


@pytest.mark.parametrize("shape", [(5, 5), (5, 2), (2, 5)])
def test_qr_has_the_signs_of_householder(shape, tmp_path):
    def every(x):
        return [*tf.linalg.qr(x), *tf.linalg.qr(x, full_matrices=True)]

    x = images(2, *shape)
    exported = Exported(function_model(every, shape), tmp_path / "m.onnx")
    exported.check(x, 1e-5)
    q, r, *_ = exported.run(x)
    np.testing.assert_allclose(q @ r, x, atol=1e-5)


def test_a_pivot_of_zero_swaps_rows_and_a_singular_matrix_has_no_determinant(tmp_path):
    model = function_model(lambda a: [tf.linalg.det(a), tf.linalg.slogdet(a)[1]], (2, 2))
    a = np.array([[[0, 2], [3, 4]], [[1, 2], [2, 4]], [[0, 0], [0, 1]]], "float32")
    determinant, log = Exported(model, tmp_path / "m.onnx").run(a)
    np.testing.assert_allclose(determinant, [-6, 0, 0])
    np.testing.assert_allclose(log, [np.log(6), -np.inf, -np.inf], rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "size", "reason"),
    [
        (tf.linalg.inv, 129, "129 rows; those of up to 128"),
        (tf.linalg.inv, None, "an unknown number of rows"),
        (tf.linalg.svd, 4, "decomposition Svd"),
    ],
)
def test_what_is_too_large_or_has_no_form_is_refused(function, size, reason, tmp_path):
    with pytest.raises(ExportError, match=reason):
        export_onnx(function_model(function, (size, size)), tmp_path / "m.onnx")
