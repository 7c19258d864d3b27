"""What the mechanisms share: how they hold, check, build and store the layers they lift."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_blocks.copying import restore_layers, store_layers, unbuilt_copy
from keras_blocks.windows.short_inputs import unless_empty

Shape = tuple[int | None, ...]

PACKAGE = "keras_blocks"
"""The name under which the mechanisms register for serialisation."""


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


def build_layer(layer: keras.layers.Layer, input_shape: Any) -> None:
    """Creates the weights of a lifted layer, as its first call would."""
    if layer.built:
        return
    if _is_default(layer, "build") and is_shape(input_shape):
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


@contextmanager
def keeping_losses_out(owner: keras.layers.Layer, allowed: bool = False) -> Iterator[None]:
    """Refuses losses that layers of the owner add within a loop, which they cannot leave.

    Args:
        owner: the mechanism.
        allowed: bool, whether it is no loop in fact.
    Raises:
        ValueError: a layer has added some.
    """
    inner = owner._flatten_layers()
    before = [len(layer._losses) for layer in inner]
    yield
    for layer, count in zip(inner, before, strict=True):
        if len(layer._losses) > count and not allowed:
            del layer._losses[count:]
            raise ValueError(
                f"{type(owner).__name__}: layer '{layer.name}' calls `add_loss` (or has an "
                "activity_regularizer), and its loss cannot leave the loop. Add the loss to what "
                f"comes out: keras.layers.ActivityRegularization behind {type(owner).__name__}, or "
                "a layer of your own that calls `add_loss` there."
            )


def output_shape(layer: keras.layers.Layer, input_shape: Any) -> Any:
    """The shape of a lifted layer's output, also for a layer that does not compute it itself."""
    try:
        shape = layer.compute_output_shape(input_shape)
    except NotImplementedError:
        spec = _traced_spec(layer, input_shape)
        return keras.tree.map_structure(lambda tensor: tuple(tensor.shape), spec)
    return tuple(shape) if is_shape(shape) else shape


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


def unquantized_policy(layer: keras.layers.Layer) -> Any:
    """The dtype policy of a layer, for a mechanism around it: that has no weights to quantize."""
    policy = layer.dtype_policy
    if policy.quantization_mode is None:
        return policy
    return keras.dtype_policies.get(policy.name.partition("_from_")[2])


def call_on_vectors(layer: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    """Calls a layer on vectors, of which there may be none: then statistics of a batch stay as they
    are, where the layer would take the mean of nothing."""
    inner = layer._flatten_layers()
    if not any(isinstance(part, keras.layers.BatchNormalization) for part in inner):
        return layer(x)

    def nothing() -> tf.Tensor:
        spec = layer.compute_output_spec(keras.KerasTensor(x.shape, x.dtype))
        sizes = [tf.shape(x)[i] if size is None else size for i, size in enumerate(spec.shape)]
        return tf.zeros(sizes, spec.dtype)

    return unless_empty(x, lambda: layer(x), nothing)


def vector_output_shape(layer: keras.layers.Layer, input_shape: Shape, owner: str) -> Shape:
    """The shape of `output_spec`."""
    return tuple(output_spec(layer, input_shape, owner).shape)


def _is_default(layer: keras.layers.Layer, method: str) -> bool:
    return getattr(type(layer), method) is getattr(keras.layers.Layer, method)


def is_shape(shape: Any) -> bool:
    """Whether it is one shape, not a structure of several."""
    return isinstance(shape, (list, tuple)) and all(
        size is None or isinstance(size, int) for size in shape
    )


def _symbol(layer: keras.layers.Layer, shape: Shape) -> keras.KerasTensor:
    return keras.KerasTensor(shape, dtype=layer.compute_dtype)


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
        self.layer = layer

    def get_config(self) -> dict[str, Any]:
        """The arguments, the lifted layer serialised among them."""
        return {"layer": store_layers([self.layer])[0], **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """The inverse of `get_config`."""
        config = dict(config)
        return cls(*restore_layers([config.pop("layer")], custom_objects), **config)
