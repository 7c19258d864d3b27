"""Axes that are shorter than the window that slides along them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

_NOTE = "_windows"

Fits = Callable[[tf.Tensor, Mapping[int, int]], bool]
"""Whether the axes of a tensor are known to be as long as this, before there is any data."""


def _unknown(x: tf.Tensor, sizes: Mapping[int, int]) -> bool:
    return False


_FITS: ContextVar[Fits] = ContextVar("fits", default=_unknown)


def is_for_a_file() -> bool:
    """Whether the graph that is being traced becomes a file: what is asked of the sizes of its
    inputs is then checked before it runs, and nobody reads what it says while it runs."""
    return _FITS.get() is not _unknown


@contextmanager
def known_to_fit(fits: Fits) -> Iterator[None]:
    """Within the context, windows that are known to fit need no branch."""
    token = _FITS.set(fits)
    try:
        yield
    finally:
        _FITS.reset(token)


def guard_short_input(
    x: tf.Tensor,
    widths: Sequence[int],
    slide: Callable[[], tf.Tensor],
    count: Callable[[tuple[tf.Tensor, ...]], Sequence[tf.Tensor]],
    features: int | None = None,
    strides: Sequence[int] | None = None,
) -> tf.Tensor:
    """The result of windows over (batch, spatial..., features), without a step where none fits.

    TensorFlow fails on an axis that is shorter than its window, or gives its input back.

    Args:
        x: the input.
        widths: the steps that a window spans along each spatial axis.
        slide: gives the result where every axis is long enough.
        count: takes the lengths of the spatial axes and gives the steps of the result along each.
        features: int, the last axis of the result; None for that of the input.
        strides: the steps from one window to the next along each spatial axis, 1 by default.
    """
    known = list(zip(x.shape[1:-1], widths, strict=True))
    # In 64 bits, as ONNX has its shapes.
    sizes = tf.shape(x, tf.int64)

    def nothing() -> tf.Tensor:
        last = sizes[-1] if features is None else features
        return tf.zeros([sizes[0], *count(tuple(tf.unstack(sizes[1:-1]))), last], x.dtype)

    if any(size is not None and size < width for size, width in known):
        return nothing()  # of a window that is known not to fit not even the shape can be told
    if None not in x.shape[1:-1] or _FITS.get()(x, dict(enumerate(widths, start=1))):
        return slide()
    fits = [sizes[axis] >= width for axis, width in enumerate(widths, start=1)]
    result = tf.cond(functools.reduce(tf.logical_and, fits), slide, nothing)
    last = x.shape[-1] if features is None else features
    result.set_shape((x.shape[0], *(None for _ in widths), last))
    if not tf.executing_eagerly():
        _note(result, x, [*widths, *(strides or [1] * len(widths))])
    return result


def with_a_step(x: tf.Tensor, mask: Any, run: Callable[[tf.Tensor, Any], Any]) -> Any:
    """The result of a loop over the steps of (batch, time, ...); where there is none, over a masked
    one, which leaves everything as it is. TensorFlow's loops need one.

    Args:
        x: the input.
        mask: (batch, time), or a list of such, or None.
        run: takes input and mask, and gives the result.
    """

    def no_step() -> Any:
        padded = tf.pad(x[:, :0], [(0, 0), (0, 1), *((0, 0) for _ in x.shape[2:])])
        padded.set_shape((x.shape[0], 1, *x.shape[2:]))
        return run(padded, tf.zeros(tf.shape(padded)[:2], tf.bool))

    if x.shape[1] == 0:
        return no_step()
    if x.shape[1] is not None or tf.executing_eagerly() or is_for_a_file():
        return run(x, mask)
    return tf.cond(tf.shape(x)[1] > 0, lambda: run(x, mask), no_step)


def unless_empty(
    x: tf.Tensor, run: Callable[[], tf.Tensor], nothing: Callable[[], tf.Tensor]
) -> tf.Tensor:
    """What `run` gives, or where `x` holds nothing at all what `nothing` gives."""
    if 0 in x.shape:
        return nothing()
    if x.shape.is_fully_defined() or is_for_a_file():
        return run()
    size = tf.size(x)
    if tf.executing_eagerly():
        return run() if size > 0 else nothing()
    return tf.cond(size > 0, run, nothing)


def windows_of(result: tf.Tensor) -> tuple[tf.Tensor, list[tuple[int, int]]] | None:
    """The input of what `guard_short_input` gave in a graph, and the width and stride of axes;
    None for other tensors."""
    try:
        note = result.op.get_attr(_NOTE)
    except ValueError:
        return None
    name, *numbers = note
    sizes = [int(number) for number in numbers]
    rank = len(sizes) // 2
    pairs = list(zip(sizes[:rank], sizes[rank:], strict=True))
    return result.graph.get_tensor_by_name(name.decode()), pairs


def _note(result: tf.Tensor, x: tf.Tensor, sizes: Sequence[int]) -> None:
    texts = [x.name.encode(), *(str(size).encode() for size in sizes)]
    values = attr_value_pb2.AttrValue.ListValue(s=texts)
    result.op._set_attr(_NOTE, attr_value_pb2.AttrValue(list=values))
