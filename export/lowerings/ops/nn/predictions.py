"""What is read off predictions: labels along time, ranks of targets, counts of values."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites
from keras_blocks.export.tracing.stand_ins import as_written


@rewrites("CTCGreedyDecoder")
def decode_greedily(op: tf.Operation, scores: tf.Tensor, lengths: tf.Tensor) -> list[tf.Tensor]:
    """The best label of each step without blanks, and without repeats where they are merged."""
    shape = tf.shape(scores)
    blank = op.get_attr("blank_index")
    blank = tf.constant(blank) if blank >= 0 else shape[2] + blank
    best = tf.transpose(tf.argmax(scores, -1, output_type="int32"))
    inside = tf.range(shape[0])[None] < tf.cast(lengths, "int32")[:, None]
    kept = inside & tf.not_equal(best, blank)
    if op.get_attr("merge_repeated"):
        before = tf.pad(best[:, :-1], [[1, 0], [0, 0]][::-1], constant_values=-1)
        kept &= tf.not_equal(best, before)
    places = tf.where(kept)
    order = tf.cumsum(tf.cast(kept, "int64"), axis=1) - 1
    indices = tf.stack([places[:, 0], tf.gather_nd(order, places)], 1)
    count = tf.reduce_max(tf.pad(tf.reduce_sum(tf.cast(kept, "int64"), 1), [[0, 1]]))
    values = tf.cast(tf.gather_nd(best, places), "int64")
    highest = tf.transpose(tf.reduce_max(scores, -1))
    total = tf.reduce_sum(tf.where(inside, highest, tf.zeros_like(highest)), 1, keepdims=True)
    dense = tf.stack([tf.cast(shape[1], "int64"), count])
    return [indices, values, dense, -total]


@rewrites("InTopK", "InTopKV2")
def is_in_top_k(op: tf.Operation, scores: tf.Tensor, targets: tf.Tensor, k: Any = None) -> Any:
    """Whether fewer than k classes have a higher score than the target."""
    k = op.get_attr("k") if k is None else k
    classes = tf.shape(scores, targets.dtype)[1]
    inside = (targets >= 0) & (targets < classes)
    own = tf.gather(scores, tf.where(inside, targets, 0), batch_dims=1)
    higher = tf.reduce_sum(tf.cast(scores > own[:, None], "int32"), 1)
    finite = tf.reduce_all(tf.math.is_finite(scores), 1)
    return inside & finite & (higher < tf.cast(k, "int32"))


@rewrites("HistogramFixedWidth")
def count_in_bins(op: tf.Operation, values: Any, ends: Any, bins: Any) -> tf.Tensor:
    """How many values fall into each of as many bins of one width; the ends take what is beyond."""
    step = (ends[1] - ends[0]) / tf.cast(bins, values.dtype)
    flat = tf.reshape(values, [-1])
    places = tf.floor(as_written("Div", tf.maximum(flat, ends[0]) - ends[0], step))
    places = tf.minimum(places, tf.cast(bins - 1, values.dtype))
    hot = tf.equal(tf.cast(places, "int32")[:, None], tf.range(bins)[None])
    return tf.reduce_sum(tf.cast(hot, op.outputs[0].dtype), 0)
