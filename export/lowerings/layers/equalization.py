"""Contrast limited adaptive histogram equalization of images whose size is not known.

An image is cut into tiles. Each tile has a table: of a value v the share of its pixels up to v,

    table[v] = 255 (sum_(u <= v) h[u] - h[0]) / (pixels - h[0])

where h counts the tile's pixels by value, what exceeds the clip limit being shared out evenly. A
pixel becomes what the tables of the four tiles around it say, weighted by how near their middles
are. Keras's own code reckons with the sizes of the tiles as Python numbers.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call

_VALUES = 256


@lowers(keras.layers.ContrastLimitedAdaptiveHistogramEqualization)
def lower_equalization(layer: Any) -> Call:
    """Keras's own call, with the tiles of a free size."""
    own_call = layer.call
    spatial = (-2, -1) if layer.data_format == "channels_first" else (-3, -2)

    def call(data: Any, training: bool | None = None) -> Any:
        if isinstance(data, dict) or None not in [data.shape[axis] for axis in spatial]:
            return own_call(data, training=training)
        images = tf.cast(data, layer.compute_dtype)
        if layer.data_format == "channels_first":
            images = keras.ops.moveaxis(images, -3, -1)
        low, high = layer.value_range
        batch = images if images.shape.rank == 4 else images[tf.newaxis]
        scaled = (tf.cast(batch, tf.float32) - low) / (high - low) * (_VALUES - 1)
        y = _equalized(scaled, layer.tile_grid_size, layer.clip_limit)
        y = tf.cast(y / (_VALUES - 1) * (high - low) + low, images.dtype)
        y = tf.ensure_shape(y if images.shape.rank == 4 else y[0], images.shape)
        return keras.ops.moveaxis(y, -1, -3) if layer.data_format == "channels_first" else y

    return call


def _equalized(images: tf.Tensor, grid: tuple[int, int], clip_limit: float) -> tf.Tensor:
    """(batch, height, width, channels) of values from 0 to 255."""
    batch, height, width, channels = tf.unstack(tf.shape(images))
    tile = [-(-size // count) for size, count in zip((height, width), grid, strict=True)]
    pixels = tf.cast(tf.clip_by_value(images, 0, _VALUES - 1), tf.int32)
    for axis, size in enumerate((height, width)):
        pixels = tf.gather(pixels, _mirrored(size, tile[axis] * grid[axis]), axis=axis + 1)
    tiles = tf.reshape(pixels, [batch, grid[0], tile[0], grid[1], tile[1], channels])
    tiles = tf.transpose(tiles, [0, 1, 3, 5, 2, 4])
    tables = _tables(tf.reshape(tiles, [batch, *grid, channels, tile[0] * tile[1]]), clip_limit)
    # Of every pixel the number of its table's entry, without the tile.
    entries = tf.range(batch)[:, None, None, None] * (grid[0] * grid[1])
    rows, down = _neighbours(height, tile[0], grid[0])
    columns, right = _neighbours(width, tile[1], grid[1])

    def said_by(row: tf.Tensor, column: tf.Tensor) -> tf.Tensor:
        at = entries + row[:, None, None] * grid[1] + column[:, None]
        at = at * channels + tf.range(channels)
        return tf.gather(tables, at * _VALUES + pixels[:, :height, :width])

    upper, lower = (
        said_by(row, columns[0]) * (1 - right[:, None]) + said_by(row, columns[1]) * right[:, None]
        for row in rows
    )
    return upper * (1 - down[:, None, None]) + lower * down[:, None, None]


def _mirrored(size: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """Which steps fill a longer axis: those at its end once more, backwards."""
    steps = tf.range(wanted)
    return tf.where(steps < size, steps, 2 * size - 1 - steps)


def _tables(tiles: tf.Tensor, clip_limit: float) -> tf.Tensor:
    """The tables of all tiles after one another, from the pixels of each in the last axis."""
    count = tf.cast(tf.shape(tiles)[-1], tf.float32)
    histogram = tf.reduce_sum(tf.one_hot(tiles, _VALUES), axis=-2)
    if clip_limit > 0:
        clipped = tf.minimum(histogram, clip_limit * count / _VALUES)
        excess = tf.reduce_sum(histogram - clipped, axis=-1, keepdims=True)
        histogram = clipped + excess / _VALUES
    total = tf.cumsum(histogram, axis=-1)
    first = total[..., :1]
    others = count - first
    table = (total - first) * (_VALUES - 1) / tf.where(others == 0, tf.ones_like(others), others)
    return tf.reshape(tf.clip_by_value(table, 0, _VALUES - 1), [-1])


def _neighbours(
    size: tf.Tensor, tile: tf.Tensor, count: int
) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    """For each step the tiles before and after it, by their middles, and the weight of the second.

    Beyond the first and the last middle both are the same tile.
    """
    place = (tf.cast(tf.range(size), tf.float32) * 2 - tf.cast(tile, tf.float32)) / 2
    place /= tf.cast(tile, tf.float32)
    before = tf.floor(place)
    numbers = tf.cast(before, tf.int32)
    first, second = (tf.clip_by_value(numbers + more, 0, count - 1) for more in (0, 1))
    return (first, second), place - before
