"""What the mechanisms share: how they hold, check, build and store the layers they lift."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

Shape = tuple[int | None, ...]

PACKAGE = "keras_blocks"
"""The name under which the mechanisms register for serialisation."""


_lifted: weakref.WeakKeyDictionary[keras.layers.Layer, int] = weakref.WeakKeyDictionary()
"""How often each layer was lifted: one that is lifted twice is shared, and saved as such."""


def check_layer(layer: Any, owner: str, argument: str = "layer") -> keras.layers.Layer:
    """The layer itself, if it is one.

    Args:
        layer: what the user gave.
        owner: str, the mechanism that asks.
        argument: str, the name of the argument that brought it.
    Raises:
        TypeError: it is no layer; the message says what it is instead.
    """
    if isinstance(layer, keras.layers.Layer):
        return layer
    if inspect.isclass(layer) and issubclass(layer, keras.layers.Layer):
        mend = f"Give an instance: {layer.__name__}(...)."
    elif isinstance(layer, keras.KerasTensor):
        mend = "Give the layer itself; call the mechanism on the tensor."
    elif callable(layer):
        mend = "Wrap the function: keras.layers.Lambda(function)."
    else:
        mend = "Give a block, a stock layer, a layer of your own or a keras.Model."
    raise TypeError(
        f"{owner}: `{argument}` must be a Keras layer. "
        f"Received: {layer!r} (of type {type(layer).__name__}). {mend}"
    )


def count_lift(layer: keras.layers.Layer) -> None:
    """Notes that a mechanism holds the layer; each does so once."""
    _lifted[layer] = _lifted.get(layer, 0) + 1


def build_layer(layer: keras.layers.Layer, input_shape: Any) -> None:
    """Creates the weights of a lifted layer, as its first call would."""
    if layer.built:
        return
    if _is_default(layer, "build") and _is_shape(input_shape):
        # It has no `build` of its own: its weights, or those of its sub-layers, come with a call.
        with leaving_no_nodes([layer]):
            layer(_symbol(layer, input_shape))
    else:
        layer.build(input_shape)


@contextmanager
def leaving_no_nodes(layers: Iterable[keras.layers.Layer]) -> Iterator[None]:
    """Symbolic calls of these layers are forgotten.

    A functional model that is loaded finds a layer's calls by their number. If the layer is lifted
    as well as called by the model itself, its calls inside must not count.
    """
    kept = [
        (nodes, len(nodes))
        for layer in layers
        for nodes in (layer._inbound_nodes, layer._outbound_nodes)
    ]
    try:
        yield
    finally:
        for nodes, count in kept:
            del nodes[count:]


def output_shape(layer: keras.layers.Layer, input_shape: Any) -> Any:
    """The shape of a lifted layer's output, also for a layer that does not compute it itself."""
    try:
        shape = layer.compute_output_shape(input_shape)
    except NotImplementedError:
        spec = _traced_spec(layer, input_shape)
        return keras.tree.map_structure(lambda tensor: tuple(tensor.shape), spec)
    return tuple(shape) if _is_shape(shape) else shape


def output_spec(layer: keras.layers.Layer, input_shape: Shape, owner: str) -> keras.KerasTensor:
    """The symbolic output of a lifted layer on a dense input.

    Raises:
        ValueError: the layer gives more than one tensor, or one without a batch axis.
    """
    spec = _traced_spec(layer, input_shape)
    if isinstance(spec, keras.KerasTensor) and len(spec.shape) >= 1:
        return spec
    raise ValueError(
        f"{owner}: the lifted layer '{layer.name}' must give one tensor whose first axis is the "
        f"batch. On an input of shape {input_shape} it gives {spec}."
    )


def _traced_spec(layer: keras.layers.Layer, input_shape: Shape) -> Any:
    """The symbolic output. A layer without weights has none after it: tracing may make some."""
    traces = _is_default(layer, "compute_output_shape") or not _is_default(
        layer, "compute_output_spec"
    )
    if not layer.built and traces:
        layer = unbuilt_copy(layer)
        build_layer(layer, input_shape)
    return layer.compute_output_spec(_symbol(layer, input_shape))


def unbuilt_copy(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same config, without weights yet unless it is a model that has them."""
    # So that the classes of layers inside are found where they are not registered.
    classes = {type(inner).__name__: type(inner) for inner in layer._flatten_layers()}
    with keras.saving.CustomObjectScope(classes):
        return type(layer).from_config(_unshared(layer.get_config()))


def _unshared(config: Any) -> Any:
    """The config without Keras's marks of shared objects, so that nothing is: it is a new copy."""
    if isinstance(config, dict):
        return {k: _unshared(v) for k, v in config.items() if k != "shared_object_id"}
    return [_unshared(v) for v in config] if isinstance(config, list) else config


def vector_output_shape(layer: keras.layers.Layer, input_shape: Shape, owner: str) -> Shape:
    """The shape of `output_spec`."""
    return tuple(output_spec(layer, input_shape, owner).shape)


def _is_default(layer: keras.layers.Layer, method: str) -> bool:
    return getattr(type(layer), method) is getattr(keras.layers.Layer, method)


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, (list, tuple)) and all(
        size is None or isinstance(size, int) for size in shape
    )


def _symbol(layer: keras.layers.Layer, shape: Shape) -> keras.KerasTensor:
    return keras.KerasTensor(shape, dtype=layer.compute_dtype)


def store_layer(layer: Any) -> dict[str, Any]:
    """The config of a lifted layer, or of a cell."""
    config = keras.saving.serialize_keras_object(layer)
    if _lifted.get(layer, 0) > 1:
        # While a model is saved, Keras marks what it serialises again as shared, but in nested
        # configs loses the mark of the first time. So the first time is not the one to keep.
        config = keras.saving.serialize_keras_object(layer)
    # The mechanism builds it. Left to itself Keras would call a layer built that has no `build` of
    # its own, and never make the weights of the layers inside.
    config.pop("build_config", None)
    return config


def restore_layer(config: dict[str, Any], custom_objects: Any = None) -> Any:
    """The inverse of `store_layer`."""
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)


class Affine(NamedTuple):
    """The parts of a layer that computes `activation(x @ kernel + bias)` on the last axis."""

    kernel: Any
    bias: Any | None
    activation: Callable[[Any], Any]

    def finish(self, product: Any) -> Any:
        """`activation(product + bias)`."""
        if self.bias is None:
            return self.activation(product)
        # Its gradient is several times faster than that of a broadcast sum.
        return self.activation(tf.nn.bias_add(product, tf.convert_to_tensor(self.bias)))


def affine_parts(layer: keras.layers.Layer, compute_dtype: str) -> Affine | None:
    """The parts of an affine layer, from which a mechanism can compute it in a cheaper order.

    A unit says that it is affine by a method `affine_parts() -> (kernel, bias or None,
    activation)`; so the mechanisms know no unit by name. The stock Dense layer counts as one too.

    Args:
        layer: the built layer.
        compute_dtype: str, the dtype in which the mechanism computes.
    Returns:
        The parts, or None where only a call of the layer itself is right: it is not affine, or a
        call would do more (another dtype, an activity regularizer, quantized weights).
    """
    plain = (
        layer.built
        and layer.compute_dtype == compute_dtype
        and layer.activity_regularizer is None
        and layer.quantization_mode is None
    )
    if not plain:
        return None
    if hasattr(layer, "affine_parts") and not _overrides_call(layer):
        kernel, bias, activation = layer.affine_parts()
        return Affine(kernel, bias, activation or keras.activations.linear)
    if type(layer) is keras.layers.Dense:
        return Affine(layer.kernel, layer.bias, layer.activation or keras.activations.linear)
    return None


def _overrides_call(layer: keras.layers.Layer) -> bool:
    """Whether a subclass changed `call` after `affine_parts` was written, so that it may lie."""
    homes = [
        cls for cls in type(layer).__mro__ if "call" in vars(cls) or "affine_parts" in vars(cls)
    ]
    return "affine_parts" not in vars(homes[0])


class Lifting(keras.layers.Layer):
    """Base of the mechanisms that lift one layer; it keeps the layer and stores it in the config.

    Args:
        layer: any Keras layer: a block, a stock layer, a layer of your own, a whole model.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        check_layer(layer, type(self).__name__)
        super().__init__(**kwargs)
        count_lift(layer)
        self.layer = layer

    def get_config(self) -> dict[str, Any]:
        """The arguments, the lifted layer serialised among them."""
        return {"layer": store_layer(self.layer), **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        config = dict(config)
        return cls(restore_layer(config.pop("layer"), custom_objects), **config)
