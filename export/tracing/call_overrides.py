"""Puts another `call` on the layers of a model for the length of one trace, and takes it off again.

The replacement is an instance attribute, which Keras looks up before the class's method; saved
files, configs and other instances never see it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
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
        replacement: takes a layer and gives the function to call in place of `layer.call`, or None
            to leave the layer alone.
    """
    with one_at_a_time:
        touched: list[tuple[keras.layers.Layer, Any]] = []
        try:
            for layer in _layers(model):
                call = replacement(layer)
                if call is not None:
                    touched.append((layer, layer.__dict__.get("call")))
                    # Not setattr: Keras would track the function, or refuse it once built.
                    layer.__dict__["call"] = _for_this_thread(call, layer.call)
            yield
        finally:
            for layer, before in reversed(touched):
                if before is None:
                    del layer.__dict__["call"]
                else:
                    layer.__dict__["call"] = before


def _for_this_thread(call: Call, own_call: Call) -> Call:
    """Other threads may be running the model meanwhile."""
    owner = threading.get_ident()

    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (call if threading.get_ident() == owner else own_call)(*args, **kwargs)

    return chosen


def _layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Every layer inside the model once, shared ones too."""
    unique = {id(layer): layer for layer in model._flatten_layers(include_self=False)}
    return list(unique.values())
