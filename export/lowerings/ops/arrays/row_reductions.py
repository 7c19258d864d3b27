"""Ragged rows reduced along time with Gather and the reductions of ONNX.

ONNX has no op that reduces segments, and ScatterElements, which can stand for one, takes 5 to 10
times as long. So rows are cut into chunks of a few steps: each chunk is reduced, then the chunks of
each row. That reads what is there about once, and little of it is padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.export.tracing.stand_ins import onnx_node
from keras_blocks.ragged import is_ragged
from keras_blocks.rows.reductions import RowReductions, use_row_reductions

CHUNK = 8


@lowers(kb.GlobalMaxPooling, kb.GlobalSumPooling, kb.GlobalAveragePooling, kb.AttentionPooling)
def lower_row_pooling(layer: keras.layers.Layer) -> Call:
    """The layer itself, with the reductions of rows in their ONNX form."""
    own_call = layer.call

    def call(inputs: Any, **options: Any) -> Any:
        if not is_ragged(inputs):
            return own_call(inputs, **options)
        with use_row_reductions(ChunkedReductions()):
            return own_call(inputs, **options)

    return call


class ChunkedReductions(RowReductions):
    """Reductions of the chunks of rows, then of the rows' chunks."""

    def sum(self, x: tf.RaggedTensor) -> tf.Tensor:
        """ReduceSum twice."""
        return _reduce(tf.reduce_sum, x, fill=0)

    def max(self, x: tf.RaggedTensor) -> tf.Tensor:
        """ReduceMax twice, and 0 for a row without steps."""
        greatest = _reduce(tf.reduce_max, x, fill=x.dtype.min)
        filled = tf.reshape(x.row_lengths() > 0, [-1, *(1 for _ in x.shape[2:])])
        return tf.where(filled, greatest, tf.zeros([], x.dtype))


def _reduce(reduction: Callable[..., tf.Tensor], x: tf.RaggedTensor, fill: float) -> tf.Tensor:
    splits = tf.cast(x.row_splits, tf.int64)
    lengths = splits[1:] - splits[:-1]
    chunks = _quotient(lengths + CHUNK - 1)
    ends = tf.cumsum(chunks)
    # No row is a longest row too, and one row of padding stands in for no chunks.
    most = tf.reduce_max(tf.concat([chunks, tf.ones([1], tf.int64)], axis=0))
    inside = tf.range(most) < chunks[:, tf.newaxis]
    row, chunk = _places(inside)
    steps = (chunk * CHUNK)[:, tf.newaxis] + tf.range(CHUNK, dtype=tf.int64)
    kept = steps < tf.gather(lengths, row)[:, tf.newaxis]
    first = tf.gather(splits[:-1], row)[:, tf.newaxis]
    of_chunks = reduction(_gather(x.values, first + steps, kept, fill), axis=1)
    places = (ends - chunks)[:, tf.newaxis] + tf.range(most)
    return reduction(_gather(of_chunks, places, inside, fill), axis=1)


def _gather(values: tf.Tensor, places: tf.Tensor, kept: tf.Tensor, fill: float) -> tf.Tensor:
    """The values at these places, `fill` where they are not kept."""
    padding = tf.fill(tf.concat([[1], tf.shape(values)[1:]], axis=0), tf.cast(fill, values.dtype))
    behind = tf.shape(values, tf.int64)[0]
    return tf.gather(tf.concat([values, padding], axis=0), tf.where(kept, places, behind))


def _quotient(lengths: tf.Tensor) -> tf.Tensor:
    """Of numbers that are not negative by CHUNK; TensorFlow's rounds down, which takes more ops."""
    chunk = tf.constant(CHUNK, tf.int64)
    return onnx_node("Div", [lengths, chunk], [tf.TensorSpec(lengths.shape, tf.int64)])[0]


def _places(mask: tf.Tensor) -> list[tf.Tensor]:
    """The rows and the columns where the mask is set, row by row."""
    (places,) = onnx_node("NonZero", [mask], [tf.TensorSpec([2, None], tf.int64)])
    return tf.unstack(places)
