"""How the next symbol of a row is chosen from its scores, and the numbers it is drawn by.

All of it is arithmetic on int64 and float32 that an ONNX file does exactly as TensorFlow and NumPy
do, so that the same seed draws the same symbols everywhere.
"""

from __future__ import annotations

import tensorflow as tf

WORD, HALF = 2**32, 2**16
STEP = 0x9E3779B9  # of the counter: the golden ratio, so that steps lie far apart
# Odd, so that nothing is lost, and so small that their products with words fit into an int64.
FACTORS = (0x7FEB352D, 0x2C1B3C6D, 0x297A2D39)
FEW = 512  # symbols, which are looked through at once
BLOCKS = range(8, 65)


def uniform_numbers(seed: tf.Tensor, count: int) -> tf.Tensor:
    """(batch, count) of float32 in [0, 1): the numbers of each row's seed, by their place alone.

    u[i, t] = mix(mix(seed[i]) + (t + 1) g mod 2^32) / 2^32, cut to 24 bits

    A row's numbers hang on nothing but its own seed, neither on other rows nor on `count`.
    """
    seed = tf.math.floormod(tf.cast(seed, tf.int64), WORD)
    places = tf.range(1, count + 1, dtype=tf.int64) * STEP
    mixed = _mix(tf.math.floormod(_mix(seed)[:, tf.newaxis] + places, WORD))
    return tf.cast(mixed // 2**8, tf.float32) / 2**24


def _mix(x: tf.Tensor) -> tf.Tensor:
    """A permutation of [0, 2^32) in which every bit hangs on all bits of x.

    Each round is one of Feistel's: the low half stands on top, what was there is changed by the
    square of it, and the product with an odd number spreads both.
    """
    for factor in FACTORS:
        high, low = x // HALF, tf.math.floormod(x, HALF)
        changed = tf.math.floormod(high + low * low // 2**9, HALF)
        x = tf.math.floormod((low * HALF + changed) * factor, WORD)
    return x


def draw(
    scores: tf.Tensor,
    uniform: tf.Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
) -> tf.Tensor:
    """(batch,) int32: symbols drawn by softmax(scores / temperature).

    The symbols stand side by side in [0, 1), each as wide as its share, and the uniform number
    falls on one of them: in the order of the vocabulary, or of their shares where some are cut off.
    """
    scaled, symbols = scores / temperature, None
    if top_k is not None or top_p is not None:
        size = scores.shape[-1]
        scaled, symbols = tf.math.top_k(scaled, min(top_k or size, size))
    shares = tf.nn.softmax(scaled)
    ends = tf.cumsum(shares, axis=-1)
    if top_p is not None:
        # The first is always in.
        shares = tf.where(ends - shares < top_p, shares, 0.0)
        ends = tf.cumsum(shares, axis=-1)
    place = tf.reduce_sum(tf.cast(ends <= uniform[:, tf.newaxis] * ends[:, -1:], tf.int32), axis=-1)
    place = tf.minimum(place, ends.shape[-1] - 1)
    return place if symbols is None else tf.gather(symbols, place, batch_dims=1)


def best(scores: tf.Tensor) -> tf.Tensor:
    """(batch,) int32: the symbol with the highest score, the first of equals.

    onnxruntime finds places of maxima at a tenth of the speed of maxima. So of many symbols first
    the block that holds the maximum is found, by the maxima of blocks, then the place within.
    """
    size = scores.shape[-1]
    width = max((n for n in BLOCKS if size % n == 0), default=1) if size >= FEW else 1
    if width == 1:
        return tf.argmax(scores, axis=-1, output_type=tf.int32)
    blocks = tf.reshape(scores, (-1, size // width, width))
    block = tf.argmax(tf.reduce_max(blocks, axis=-1), axis=-1, output_type=tf.int32)
    within = tf.gather(blocks, block, batch_dims=1)
    return block * width + tf.argmax(within, axis=-1, output_type=tf.int32)


def score_of(scores: tf.Tensor, symbols: tf.Tensor) -> tf.Tensor:
    """(batch,): the log of the share that each symbol has in the softmax of its row's scores."""
    return tf.gather(tf.nn.log_softmax(scores), symbols, batch_dims=1)
