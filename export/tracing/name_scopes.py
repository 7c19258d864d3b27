"""The path of every layer as the scope of the operations that it computes with.

Keras opens a scope for each call, and TensorFlow numbers those of one name. Here a layer's scope is
its path in the model, `model/encoder/attention`, whenever it is called, so that the nodes of the
exported file lead back to it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.export.tracing.call_overrides import Call, own_call

_INNER = "graph."


def scoped(
    model: keras.Model, replacement: Callable[[keras.layers.Layer], Call | None]
) -> Callable[[keras.layers.Layer], Call]:
    """What each layer of a model calls in its own scope: its replacement, or its own `call`.

    Args:
        model: the model that is traced.
        replacement: gives what a layer calls in place of its own, or None.
    """
    path = [model.name]
    graphs: dict[tf.Graph, int] = {}

    def scoped_call(layer: keras.layers.Layer) -> Call:
        call = replacement(layer) or own_call(layer)

        def called(*args: Any, **kwargs: Any) -> Any:
            path.append(layer.name)
            number = graphs.setdefault(tf.compat.v1.get_default_graph(), len(graphs))
            # The graphs of loops and branches are put into the others later.
            inner = [f"{_INNER}{number}"] if number else []
            try:
                # With a slash at its end a scope is entered again, not numbered.
                with tf.name_scope("/".join(inner + path) + "/"):
                    return call(*args, **kwargs)
            finally:
                path.pop()

        return called

    return scoped_call


def outside_of_graphs(scope: str) -> str:
    """A scope without the number of the graph that it is in."""
    return re.sub(rf"^{re.escape(_INNER)}\d+/", "", scope)
