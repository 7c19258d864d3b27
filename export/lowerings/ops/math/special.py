"""Special functions by their known approximations, right to a few units of float32's last place."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites

# M. Giles, "Approximating the erfinv function": polynomials in w - 2.5 and sqrt(w) - 3.
# fmt: off
_NEAR = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
         -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
_FAR = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
        -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)
# C. Lanczos, "A precision approximation of the gamma function", with g = 7.
_LANCZOS = (676.520368121885098567009190444019, -1259.13921672240287047156078755283,
            771.3234287776530788486528258894, -176.61502916214059906584551354,
            12.507343278686904814458936853, -0.13857109526572011689554707,
            9.984369578019570859563e-6, 1.50563273514931155834e-7)
# fmt: on
_LANCZOS_FIRST, _LANCZOS_SHIFT = 0.99999999999980993227684700473478, 7.5
# x / (exp(x) - 1), for the digamma function of large numbers: B[2n] / 2n.
_BERNOULLI = (1 / 12, -1 / 120, 1 / 252, -1 / 240)


def _is_single(op: tf.Operation, given: Any) -> bool:
    return op.inputs[0].dtype in (tf.float32, tf.float16)


def _polynomial(x: tf.Tensor, coefficients: Any) -> tf.Tensor:
    total = tf.zeros_like(x)
    for coefficient in coefficients:
        total = total * x + coefficient
    return total


def _inverse_error(x: tf.Tensor, w: tf.Tensor) -> tf.Tensor:
    """erfinv(x) from x and w = -log(1 - x^2)."""
    near = _polynomial(w - 2.5, _NEAR)
    far = _polynomial(tf.sqrt(w) - 3, _FAR)
    return tf.where(w < 5, near, far) * x


@rewrites("Erfinv", when=_is_single)
def erfinv(op: tf.Operation, given: tf.Tensor) -> tf.Tensor:
    """The number whose error function it is."""
    x = tf.cast(given, "float32")
    value = _inverse_error(x, -tf.math.log((1 - x) * (1 + x)))
    value = tf.where(tf.equal(tf.abs(x), 1), x * np.float32(np.inf), value)
    return tf.cast(value, given.dtype)


@rewrites("Ndtri", when=_is_single)
def ndtri(op: tf.Operation, given: tf.Tensor) -> tf.Tensor:
    """The quantile of the normal distribution."""
    p = tf.cast(given, "float32")
    w = -tf.math.log(4 * p * (1 - p))
    value = np.float32(np.sqrt(2)) * _inverse_error(2 * p - 1, w)
    infinite = tf.where(p < 0.5, np.float32(-np.inf), np.float32(np.inf))
    ends = tf.equal(p, 0) | tf.equal(p, 1)
    return tf.cast(tf.where(ends, infinite, value), given.dtype)


@rewrites("Lgamma", when=_is_single)
def lgamma(op: tf.Operation, given: tf.Tensor) -> tf.Tensor:
    """log |gamma(x)|; below 1/2 by the reflection log(pi / |sin(pi x)|) - lgamma(1 - x)."""
    x = tf.cast(given, "float32")
    small = x < 0.5
    z = tf.where(small, -x, x - 1)
    total = tf.fill(tf.shape(z), tf.constant(_LANCZOS_FIRST, "float32"))
    for k, coefficient in enumerate(_LANCZOS, 1):
        total += coefficient / (z + k)
    # log(z + shift), without the digits that the sum would lose.
    log_shifted = np.float32(np.log(_LANCZOS_SHIFT)) + tf.math.log1p(z / _LANCZOS_SHIFT)
    value = (z + 0.5 - (z + _LANCZOS_SHIFT) / log_shifted) * log_shifted
    value = np.float32(np.log(2 * np.pi) / 2) + value + tf.math.log(total)
    part = tf.abs(x) - tf.floor(tf.abs(x))
    part = tf.where(part > 0.5, 1 - part, part)
    reflected = np.float32(np.log(np.pi)) - tf.math.log(tf.sin(np.float32(np.pi) * part)) - value
    result = tf.where(small, reflected, value)
    infinite = tf.math.is_inf(x) | (tf.equal(part, 0) & (x <= 0))
    return tf.cast(tf.where(infinite, np.float32(np.inf), result), given.dtype)


@rewrites("Digamma", when=_is_single)
def digamma(op: tf.Operation, given: tf.Tensor) -> tf.Tensor:
    """The derivative of lgamma: moved up to x >= 8, then log x - 1 / 2x - sum B[2n] / (2n x^2n)."""
    x = tf.cast(given, "float32")
    negative = x <= 0
    whole = tf.equal(x, tf.floor(x))
    y = tf.where(negative, 1 - x, x)
    below = tf.zeros_like(y)
    for _ in range(8):
        low = y < 8
        below += tf.where(low, 1 / y, tf.zeros_like(y))
        y = tf.where(low, y + 1, y)
    square = 1 / (y * y)
    series = _polynomial(square, reversed(_BERNOULLI)) * square
    value = tf.math.log(y) - 0.5 / y - series - below
    angle = np.float32(np.pi) * (x - tf.floor(x + 0.5))
    reflected = value - np.float32(np.pi) * tf.cos(angle) / tf.sin(angle)
    result = tf.where(negative, reflected, value)
    pole = tf.where(tf.equal(x, 0), np.float32(-np.inf), np.float32(np.nan))
    return tf.cast(tf.where(negative & whole, pole, result), given.dtype)


@rewrites("Xlogy")
def xlogy(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """x log y; 0 where x is."""
    none = tf.equal(x, 0)
    return tf.where(
        none, tf.zeros((), x.dtype), x * tf.math.log(tf.where(none, tf.ones((), x.dtype), y))
    )


@rewrites("Xlog1py")
def xlog1py(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """x log(1 + y); 0 where x is."""
    none = tf.equal(x, 0)
    return tf.where(
        none, tf.zeros((), x.dtype), x * tf.math.log1p(tf.where(none, tf.zeros((), x.dtype), y))
    )


@rewrites("Xdivy")
def xdivy(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """x / y; 0 where x is."""
    none = tf.equal(x, 0)
    return tf.where(none, tf.zeros((), x.dtype), x / tf.where(none, tf.ones((), x.dtype), y))


@rewrites("MulNoNan")
def mul_no_nan(op: tf.Operation, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """x y; 0 where y is, whatever x is."""
    return tf.where(tf.equal(y, 0), tf.zeros((), x.dtype), x * y)
