"""What stands for a tensor that ONNX has no type for, while a graph is traced anew.

A complex number is a pair of reals, and a list of tensors is one tensor with the elements along its
first axis. Both go through loops and branches as the tensors that they are made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf


class Pair(NamedTuple):
    """Complex numbers by their real and their imaginary parts."""

    real: Any
    imaginary: Any

    @property
    def kind(self) -> str:
        """What messages call it."""
        return "complex numbers"


class TensorList(NamedTuple):
    """A list of tensors: the elements along the first axis, and how many rows each has.

    `elements` is (number, *shape of an element), filled with zeros; where a size is not known, it
    grows to what is written. `rows` is (number,): the first size of each element, by which
    elements of different sizes are joined.
    """

    elements: Any
    rows: Any

    @property
    def kind(self) -> str:
        """What messages call it."""
        return "a list of tensors"


Value = Any
"""A tensor, a `Pair` or a `TensorList`."""


def is_composite(value: Any) -> bool:
    """Whether a value is made of several tensors."""
    return isinstance(value, Pair | TensorList)


def refined(value: Value, tensor: tf.Tensor) -> Value:
    """A value with what was known of the shape of the tensor that it stands for."""
    if isinstance(value, tf.Tensor) and value.shape.is_compatible_with(tensor.shape):
        value.set_shape(tensor.shape)
    if isinstance(value, Pair):
        for part in value:
            part.set_shape(tensor.shape)
    return value


def invariant_of(value: Value, result: tf.Tensor, elements: tf.TensorShape | None) -> Any:
    """What is known in every round of a loop of the shape of a value that goes round.

    Args:
        value: what goes in.
        result: the tensor that stood for what comes out.
        elements: the shape of the elements, if it is a list.
    """
    if isinstance(value, Pair):
        return Pair(result.shape, result.shape)
    if isinstance(value, TensorList):
        known = tf.TensorShape([None]).concatenate(elements)
        return TensorList(known, tf.TensorShape([None]))
    if value.dtype == tf.variant:
        return value.shape
    return result.shape


def both(pairs: Sequence[Any], part: int) -> list[Any]:
    """One part of each value that is a pair, and whatever is none as it is."""
    return [value[part] if isinstance(value, Pair) else value for value in pairs]
