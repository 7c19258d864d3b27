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

A rewrite puts other TensorFlow operations in place of one that has no ONNX form, before the graph
is converted: a function from the operation and its inputs to its outputs. It is the plainest of
the three, for it can be tried without ONNX:

    @rewrites("MulNoNan")
    def rewrite_mul_no_nan(op, x, y):
        return tf.where(tf.equal(y, 0), tf.zeros((), x.dtype), x * y)

A converter replaces tf2onnx's own for one TensorFlow op: a function `(context, node, name, args)`
that rewrites the node in tf2onnx's graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import keras
import tensorflow as tf

from keras_blocks.export.tracing.call_overrides import Call, first_in_place

Lowering = Callable[[keras.layers.Layer], Call | None]
Converter = Callable[[Any, Any, str, Any], None]
Rewrite = Callable[..., Any]
Condition = Callable[[tf.Operation, Sequence[Any]], bool]
AnyLowering = TypeVar("AnyLowering", bound=Callable)
AnyConverter = TypeVar("AnyConverter", bound=Callable)
AnyRewrite = TypeVar("AnyRewrite", bound=Callable)

_lowerings: dict[type[keras.layers.Layer], Lowering] = {}
_converters: dict[str, Converter] = {}
_exact_forms: dict[str, Rewrite] = {}
_rewrites: dict[str, list[tuple[Rewrite, Condition]]] = {}


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


def _always(op: tf.Operation, given: Sequence[Any]) -> bool:
    return True


def rewrites(*op_types: str, when: Condition = _always) -> Callable[[AnyRewrite], AnyRewrite]:
    """Registers the decorated function as the rewrite of these TensorFlow ops.

    Args:
        *op_types: str, the ops.
        when: says of an operation and what it takes whether the rewrite is for it. What it takes
            is empty where only the graph is looked at.
    """

    def register(rewrite: AnyRewrite) -> AnyRewrite:
        for op_type in op_types:
            _rewrites.setdefault(op_type, []).append((rewrite, when))
        return rewrite

    return register


def rewrite_of(op: tf.Operation, given: Sequence[Any]) -> Rewrite | None:
    """The rewrite for an operation that takes these values, or None: it stays as it is."""
    for rewrite, is_for in _rewrites.get(op.type, ()):
        if is_for(op, given):
            return rewrite
    return None


def rewrite_of_reals(op: tf.Operation) -> Rewrite | None:
    """The rewrite for whatever the operation takes, and so for the parts of complex numbers."""
    found = (rewrite for rewrite, is_for in _rewrites.get(op.type, ()) if is_for is _always)
    return next(found, None)


def exact_form(*op_types: str) -> Callable[[AnyRewrite], AnyRewrite]:
    """Registers the decorated function for ops that TensorFlow computes in float32 only.

    It stands for them where a graph is computed in float64, to see who rounds (see
    `verification.exact_values`).
    """

    def register(rewrite: AnyRewrite) -> AnyRewrite:
        _exact_forms.update(dict.fromkeys(op_types, rewrite))
        return rewrite

    return register


def exact_form_of(op: tf.Operation) -> Rewrite | None:
    """What computes an operation in float64, or None: TensorFlow itself may."""
    return _exact_forms.get(op.type)
