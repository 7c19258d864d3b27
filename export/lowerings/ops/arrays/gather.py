"""Gathers of an axis that does not follow the batch axes at once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_blocks.export.lowerings.registry import rewrites


def _is_further_back(op: tf.Operation, given: Any) -> bool:
    batch = op.get_attr("batch_dims")
    return batch != 0 and _axis(op) not in (None, batch % (op.inputs[1].shape.rank or 1))


def _axis(op: tf.Operation) -> int | None:
    axis, rank = tf.get_static_value(op.inputs[2]), op.inputs[0].shape.rank
    return None if axis is None or rank is None else int(axis) % rank


@rewrites("GatherV2", when=_is_further_back)
def gather(op: tf.Operation, x: tf.Tensor, places: tf.Tensor, axis: tf.Tensor) -> tf.Tensor:
    """The axis moves behind the batch, and what was before it behind what is gathered."""
    moved, rank = _axis(op) or 0, x.shape.rank
    batch = op.get_attr("batch_dims") % places.shape.rank
    rest = [a for a in range(rank) if a >= batch and a != moved]
    first = tf.transpose(x, [*range(batch), moved, *rest])
    taken = tf.gather(first, places, axis=batch, batch_dims=batch)
    count = places.shape.rank - batch
    # (batch, places, before, behind) becomes (batch, before, places, behind).
    before = list(range(batch + count, count + moved))
    behind = list(range(count + moved, rank - 1 + count))
    return tf.transpose(taken, [*range(batch), *before, *range(batch, batch + count), *behind])
