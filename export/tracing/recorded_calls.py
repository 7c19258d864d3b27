"""What a subclassed model was last called with: Keras keeps the shape of the first argument alone.

Keras gives no way to be told of calls, so `keras.Model` gets a `__call__` here that notes the
names, element types and shapes of the arguments in the model's `__dict__`, where neither saved
files nor configs see it. Models that have a `keras.Input` are left alone: they say what they take.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_KEY = "_keras_blocks_last_call"
_LEFT_OUT = frozenset(["training"])
_PAUSED: ContextVar[bool] = ContextVar("recording_is_paused", default=False)


@dataclass(frozen=True)
class Recorded:
    """The arguments of a call as nests: specs in place of tensors, anything else as it was."""

    positional: tuple[Any, ...]
    keywords: dict[str, Any]


@dataclass(frozen=True)
class ArgumentSpec:
    """A tensor of a call; None for the sizes that were others in another call, or free."""

    shape: tuple[int | None, ...]
    dtype: str
    ragged: bool = False


@contextmanager
def calls_unrecorded() -> Iterator[None]:
    """Within the context nothing is noted: these calls are the export's own."""
    token = _PAUSED.set(True)
    try:
        yield
    finally:
        _PAUSED.reset(token)


def recorded_call(model: keras.Model) -> Recorded | None:
    """What the model was last called with, or None where that was not seen."""
    return model.__dict__.get(_KEY)


def _note(model: keras.Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    def spec(leaf: Any) -> Any:
        return _spec(model, leaf)

    keywords = {
        name: keras.tree.map_structure(spec, value)
        for name, value in kwargs.items()
        if name not in _LEFT_OUT
    }
    call = Recorded(tuple(keras.tree.map_structure(spec, arg) for arg in args), keywords)
    before = recorded_call(model)
    # Not setattr: Keras would track it.
    model.__dict__[_KEY] = call if before is None else _both(before, call)


def _spec(model: keras.Model, leaf: Any) -> Any:
    """The spec of a tensor or array; anything else as it is."""
    if isinstance(leaf, tf.RaggedTensor):
        return ArgumentSpec(tuple(leaf.shape), leaf.dtype.name, True)
    if not isinstance(leaf, np.ndarray | np.generic | tf.Tensor | tf.Variable) and not (
        keras.ops.is_tensor(leaf) or isinstance(leaf, keras.Variable | keras.KerasTensor)
    ):
        return leaf
    shape = getattr(leaf.shape, "rank", 0)
    sizes = () if shape is None else tuple(leaf.shape)
    dtype = keras.backend.standardize_dtype(leaf.dtype)
    if model.autocast and keras.backend.is_float_dtype(dtype):
        dtype = model.input_dtype
    return ArgumentSpec(sizes, dtype, bool(getattr(leaf, "ragged", False)))


def _both(before: Recorded, now: Recorded) -> Recorded:
    """The later of two calls, with the sizes free that were others in the earlier one."""
    nests = (before.positional, before.keywords), (now.positional, now.keywords)
    first, second = (keras.tree.flatten(nest) for nest in nests)
    same = len(first) == len(second) and all(map(_alike, first, second))
    if not same:
        return now
    joined = [
        _joined(one, other) if isinstance(other, ArgumentSpec) else other
        for one, other in zip(first, second, strict=True)
    ]
    try:
        positional, keywords = keras.tree.pack_sequence_as(nests[1], joined)
        keras.tree.assert_same_structure(*nests)
    except ValueError:
        return now
    return Recorded(positional, keywords)


def _alike(one: Any, other: Any) -> bool:
    if not (isinstance(one, ArgumentSpec) and isinstance(other, ArgumentSpec)):
        return not isinstance(one, ArgumentSpec) and not isinstance(other, ArgumentSpec)
    rank, ragged = len(one.shape) == len(other.shape), one.ragged == other.ragged
    return rank and ragged and one.dtype == other.dtype


def _joined(one: ArgumentSpec, other: ArgumentSpec) -> ArgumentSpec:
    sizes = zip(one.shape, other.shape, strict=True)
    shape = tuple(size if size == before else None for before, size in sizes)
    return ArgumentSpec(shape, other.dtype, other.ragged)


def _call(model: keras.Model, *args: Any, **kwargs: Any) -> Any:
    outputs = keras.layers.Layer.__call__(model, *args, **kwargs)
    if not (_PAUSED.get() or getattr(model, "inputs", None)):
        _note(model, args, kwargs)
    return outputs


_call.__name__ = "__call__"
_call.__doc__ = keras.layers.Layer.__call__.__doc__
keras.Model.__call__ = _call
