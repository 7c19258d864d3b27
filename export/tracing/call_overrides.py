"""Puts another `call` on the layers of a model for the length of one trace, and takes it off again.

The replacement is an instance attribute, which Keras looks up before the class's method; saved
files, configs and other instances never see it. Of a quantised layer Keras calls another method.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

Call = Callable[..., Any]

one_at_a_time = threading.RLock()
"""Two exports of a model at once would each put back the other's replacement; nor does tf2onnx
stand two conversions at once."""


@contextmanager
def overridden_calls(
    model: keras.layers.Layer, replacement: Callable[[keras.layers.Layer], Call | None]
) -> Iterator[None]:
    """Within the context, every layer of the model calls what `replacement(layer)` gave for it.

    Args:
        model: the model; its own `call` stays.
        replacement: takes a layer and gives the function to call in place of `own_call(layer)`, or
            None to leave the layer alone.
    """
    with one_at_a_time:
        touched: list[tuple[keras.layers.Layer, str, Any]] = []
        try:
            for layer in _layers(model):
                call = replacement(layer)
                if call is not None:
                    method = _method(layer)
                    touched.append((layer, method, layer.__dict__.get(method)))
                    # Not setattr: Keras would track the function, or refuse it once built.
                    layer.__dict__[method] = _for_this_thread(call, own_call(layer))
            yield
        finally:
            for layer, method, before in reversed(touched):
                if before is None:
                    del layer.__dict__[method]
                else:
                    layer.__dict__[method] = before


def own_call(layer: keras.layers.Layer) -> Call:
    """What Keras calls in the layer; within `overridden_calls` the replacement."""
    return getattr(layer, _method(layer))


def first_in_place(
    layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a layer's call, the first in the first place also where it has its name."""
    named = dict(kwargs)
    _, first, *_ = [*inspect.signature(type(layer).call).parameters, None]
    return (args, named) if args or first not in named else ((named.pop(first),), named)


def _method(layer: keras.layers.Layer) -> str:
    return "call" if layer.quantization_mode is None else "quantized_call"


def _for_this_thread(call: Call, otherwise: Call) -> Call:
    """Other threads may be running the model meanwhile."""
    owner = threading.get_ident()

    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (call if threading.get_ident() == owner else otherwise)(*args, **kwargs)

    return chosen


def _layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Every layer inside the model once, shared ones too."""
    unique = {id(layer): layer for layer in model._flatten_layers(include_self=False)}
    return list(unique.values())
