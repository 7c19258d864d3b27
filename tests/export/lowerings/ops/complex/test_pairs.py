"""Complex numbers between transforms are pairs of reals."""

import numpy as np
import pytest
import tensorflow as tf
from onnx_runs import Exported, function_model, images

from keras_blocks.errors import ExportError
from keras_blocks.export import export_onnx

X, Y = images(3, 4), images(3, 4, seed=1)
# Quotients by small numbers are large.
TOLERANCE = 1e-4


def parts(*values):
    return [part for z in values for part in (tf.math.real(z), tf.math.imag(z))]


def test_arithmetic_is_that_of_numpy(tmp_path):
    def every(x, y):
        z, w = tf.complex(x, y), tf.complex(y, 2 * x)
        sums = (z + w, z - w, -z, z * w, z / w, tf.math.conj(z), tf.square(z), 1 / z)
        functions = (tf.exp(z), tf.math.log(z), tf.sqrt(z))
        moved = (tf.transpose(z), tf.reshape(tf.concat([z, w], 0), [2, -1]), z[:, 1:3])
        products = (tf.matmul(z, w, adjoint_b=True), tf.einsum("bi,bj->ij", z, w))
        reals = [tf.abs(z), tf.math.angle(z), tf.reduce_sum(tf.math.real(z * w), 1)]
        return parts(*sums, *functions, *moved, *products) + reals

    got = Exported(function_model(every, (4,), (4,)), tmp_path / "m.onnx").run([X, Y])
    x, y = X.numpy(), Y.numpy()
    z, w = x + 1j * y, y + 2j * x
    expected = [
        *(z + w, z - w, -z, z * w, z / w, z.conj(), z * z, 1 / z),
        *(np.exp(z), np.log(z), np.sqrt(z)),
        *(z.T, np.concatenate([z, w]).reshape(2, -1), z[:, 1:3]),
        *(z @ w.conj().T, np.einsum("bi,bj->ij", z, w)),
    ]
    flat = [part for values in expected for part in (values.real, values.imag)]
    flat += [np.abs(z), np.angle(z), (z * w).real.sum(1)]
    assert len(got) == len(flat)
    for have, want in zip(got, flat, strict=True):
        np.testing.assert_allclose(have, want, rtol=TOLERANCE, atol=TOLERANCE)


def test_complex_numbers_go_round_in_a_loop_and_into_a_branch(tmp_path):
    def powers(x):
        z = tf.complex(x, -x)
        _, z = tf.while_loop(lambda i, _: i < 3, lambda i, w: (i + 1, w * z), [0, z])
        z = tf.cond(tf.reduce_sum(x) > 0, lambda: z, lambda: tf.math.conj(z))
        return parts(z)

    exported = Exported(function_model(powers, (4,)), tmp_path / "m.onnx")
    for sign in (1, -1):
        x = sign * np.abs(X)
        z = (x - 1j * x) ** 4
        z = z if sign > 0 else z.conj()
        real, imaginary = exported.run(x)
        np.testing.assert_allclose(real, z.real, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(imaginary, z.imag, rtol=TOLERANCE, atol=TOLERANCE)


def test_what_has_no_form_for_complex_numbers_is_named(tmp_path):
    model = function_model(lambda x: tf.math.real(tf.sinh(tf.complex(x, x))), (4,))
    with pytest.raises(ExportError, match="takes complex numbers in Sinh"):
        export_onnx(model, tmp_path / "m.onnx")
