"""Colours by hue, saturation and value, and back."""

from __future__ import annotations

import tensorflow as tf

from keras_blocks.export.lowerings.registry import exact_form, rewrites


@rewrites("RGBToHSV")
def to_hsv(op: tf.Operation, images: tf.Tensor) -> tf.Tensor:
    """Hue in sixths of a circle from the largest of the three; 0 of greys."""
    red, green, blue = (images[..., c] for c in range(3))
    value = tf.reduce_max(images, -1)
    width = value - tf.reduce_min(images, -1)
    grey = width <= 0
    saturation = tf.where(value > 0, width / tf.where(value > 0, value, 1), 0)
    sixth = 1 / (6 * tf.where(grey, tf.ones_like(width), width))
    hue = tf.where(
        tf.equal(red, value),
        sixth * (green - blue),
        tf.where(
            tf.equal(green, value),
            sixth * (blue - red) + 2 / 6,
            sixth * (red - green) + 4 / 6,
        ),
    )
    hue = tf.where(grey, tf.zeros_like(hue), hue)
    return tf.stack([tf.where(hue < 0, hue + 1, hue), saturation, value], -1)


@rewrites("HSVToRGB")
def to_rgb(op: tf.Operation, images: tf.Tensor) -> tf.Tensor:
    """Each colour falls off with the distance of the hue from its own."""
    hue, saturation, value = (images[..., c] for c in range(3))
    sixths = hue * 6

    def distance(place: float) -> tf.Tensor:
        return tf.abs(sixths - place)

    parts = [distance(3) - 1, 2 - distance(2), 2 - distance(4)]
    colours = tf.clip_by_value(tf.stack(parts, -1), 0, 1)
    s, v = saturation[..., None], value[..., None]
    return (1 - s + s * colours) * v


@exact_form("AdjustSaturation")
@rewrites("AdjustSaturation")
def adjust_saturation(op: tf.Operation, images: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """The saturation times a factor, between 0 and 1."""
    hsv = to_hsv(op, images)
    saturation = tf.clip_by_value(hsv[..., 1] * tf.cast(by, images.dtype), 0, 1)
    colours = to_rgb(op, tf.stack([hsv[..., 0], saturation, hsv[..., 2]], -1))
    # A hue just below red is rounded to 1, for which TensorFlow has no sixth here: it gives grey.
    grey = ((1 - saturation) * hsv[..., 2])[..., None]
    return tf.where(hsv[..., :1] >= 1, grey, colours)


@exact_form("AdjustHue")
@rewrites("AdjustHue")
def adjust_hue(op: tf.Operation, images: tf.Tensor, by: tf.Tensor) -> tf.Tensor:
    """The hue turned by a part of the circle."""
    hsv = to_hsv(op, images)
    hue = hsv[..., 0] + tf.cast(by, images.dtype)
    return to_rgb(op, tf.stack([hue - tf.floor(hue), hsv[..., 1], hsv[..., 2]], -1))
