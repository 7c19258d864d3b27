"""Which layers have a native ONNX form, and which TensorFlow ops need a converter of ours.

A lowering is a function from a layer to the `call` that stands for its own while the model is
exported, or to None where this layer's settings have no native form. It is written in TensorFlow
operations that convert, and in `onnx_node`:

    @lowers(MyNorm)
    def lower_my_norm(layer):
        def call(x):
            shape = tf.TensorSpec(x.shape, x.dtype)
            return onnx_node("LayerNormalization", [x, layer.scale.value, layer.bias.value],
                             [shape], axis=-1, epsilon=layer.epsilon)[0]
        return call

A lowering is for one class exactly: a subclass may compute something else, and needs its own.

A converter replaces tf2onnx's own for one TensorFlow op: a function `(context, node, name, args)`
that rewrites the node in tf2onnx's graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import keras

from keras_blocks.export.tracing.call_overrides import Call, first_in_place

Lowering = Callable[[keras.layers.Layer], Call | None]
Converter = Callable[[Any, Any, str, Any], None]
AnyLowering = TypeVar("AnyLowering", bound=Callable)
AnyConverter = TypeVar("AnyConverter", bound=Callable)

_lowerings: dict[type[keras.layers.Layer], Lowering] = {}
_converters: dict[str, Converter] = {}


def lowers(*layer_classes: type[keras.layers.Layer]) -> Callable[[AnyLowering], AnyLowering]:
    """Registers the decorated function as the lowering of these layer classes.

    Raises:
        ValueError: a class already has another lowering.
        TypeError: not a class of layers.
    """

    def register(lowering: AnyLowering) -> AnyLowering:
        for layer_class in layer_classes:
            if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
                raise TypeError(
                    f"@lowers takes subclasses of keras.layers.Layer; got {layer_class}"
                )
            other = _lowerings.get(layer_class)
            if other is not None and other is not lowering:
                raise ValueError(
                    f"{layer_class.__name__} is lowered by {other.__module__}.{other.__name__} "
                    f"already; {lowering.__module__}.{lowering.__name__} cannot replace it"
                )
        _lowerings.update(dict.fromkeys(layer_classes, lowering))
        return lowering

    return register


def lowered_call(layer: keras.layers.Layer) -> Call | None:
    """What the layer calls while it is exported, or None: its own `call`."""
    lowering = _lowerings.get(type(layer))
    call = None if lowering is None else lowering(layer)
    return None if call is None else _in_any_form(layer, call)


def _in_any_form(layer: keras.layers.Layer, lowered: Call) -> Call:
    """A lowering's call for all that the layer's own may be called with: names, and weights."""

    def call(*args: Any, **kwargs: Any) -> Any:
        placed, named = first_in_place(layer, args, kwargs)
        return lowered(*map(_tensors, placed), **named)

    return call


def _tensors(argument: Any) -> Any:
    """The argument with its weights as tensors."""
    return keras.tree.map_structure(
        lambda part: part.value if isinstance(part, keras.Variable) else part, argument
    )


def converts(*op_types: str) -> Callable[[AnyConverter], AnyConverter]:
    """Registers the decorated function as the converter of these TensorFlow ops.

    Raises:
        ValueError: an op already has another converter.
    """

    def register(converter: AnyConverter) -> AnyConverter:
        for op_type in op_types:
            other = _converters.get(op_type)
            if other is not None and other is not converter:
                raise ValueError(
                    f"{op_type} is converted by {other.__module__}.{other.__name__} already; "
                    f"{converter.__module__}.{converter.__name__} cannot replace it"
                )
        _converters.update(dict.fromkeys(op_types, converter))
        return converter

    return register


def converters() -> dict[str, Converter]:
    """The converters by TensorFlow op."""
    return dict(_converters)
