"""A model seen from inside: what each of its layers gives, in Keras and in an export.

The layers are watched while the model is traced, so that nested and subclassed models open up as
functional ones do. What a layer gives inside a loop cannot be seen from outside of it; the layer
that holds the loop is seen as a whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from keras_blocks.contract import TensorSpec
from keras_blocks.export.lowerings import lowered_call
from keras_blocks.export.signature.signature import Signature, trace
from keras_blocks.export.tracing.call_overrides import Call, overridden_calls, own_call
from keras_blocks.export.tracing.name_scopes import outside_of_graphs, scoped
from keras_blocks.export.tracing.stand_ins import stand_ins


@dataclass(frozen=True)
class Seen:
    """A tensor that a layer gave: the `part`-th of its `call_number`-th call."""

    layer: str
    call_number: int
    part: int


class Probe(keras.Model):
    """Gives what the layers of `model` give, those that are done first first.

    `seen` and `calls` tell what the latest call gave, and how often each layer was called in it.
    """

    def __init__(self, model: keras.Model):
        super().__init__(name=f"{model.name}_probe")
        self.model = model
        self.seen: list[Seen] = []
        self.calls: dict[str, int] = {}

    def call(self, *arguments: Any, training: bool = False, **keywords: Any) -> list[tf.Tensor]:
        """The tensors of `seen`."""
        found: dict[Seen, tf.Tensor] = {}
        names = layer_names(self.model)
        calls: dict[str, int] = {}
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

        def note(name: str, outputs: Any) -> None:
            number = calls[name] = calls.get(name, 0) + 1
            for part, tensor in enumerate(_tensors(outputs, graph)):
                found[Seen(name, number, part)] = tensor

        def watching(layer: keras.layers.Layer) -> Call:
            call = own_call(layer)

            def watched(*args: Any, **kwargs: Any) -> Any:
                outputs = call(*args, **kwargs)
                note(names[id(layer)], outputs)
                return outputs

            return watched

        with overridden_calls(self.model, watching):
            note(self.model.name, self.model(*arguments, **keywords, training=False))
        self.seen, self.calls = list(found), calls
        return list(found.values())


def probe_signature(probe: Probe, signature: Signature) -> Signature:
    """The signature of a probe whose model is being exported."""

    def run(*flat: tf.Tensor) -> list[tf.Tensor]:
        return signature.apply(probe, flat)

    with stand_ins(), overridden_calls(probe, lowered_call):
        traced = trace(run, signature.specs())
    outputs = tuple(
        TensorSpec(f"probe.{i}", tensor.dtype.name, _dims(i, tensor))
        for i, tensor in enumerate(traced.outputs)
    )
    return replace(signature, contract=replace(signature.contract, outputs=outputs))


def layer_names(model: keras.Model) -> dict[int, str]:
    """What each layer is called, by its id: its name, or its path where others have that name."""
    layers = {id(layer): layer for layer in model._flatten_layers()}
    counts = Counter(layer.name for layer in layers.values())
    return {
        key: (layer.path or layer.name) if counts[layer.name] > 1 else layer.name
        for key, layer in layers.items()
    }


def kind_of_layer(model: keras.Model, name: str) -> str:
    """The class of the layer that is called so; nothing where there is none."""
    names = layer_names(model)
    found = (layer for layer in model._flatten_layers() if names[id(layer)] == name)
    return next((type(layer).__name__ for layer in found), "")


def layer_scopes(model: keras.Model, signature: Signature) -> dict[str, str]:
    """The name of each layer by the scope that the nodes of an export have from it."""
    scopes: dict[str, str] = {}
    names = layer_names(model)

    def noting(layer: keras.layers.Layer) -> Call:
        call = own_call(layer)

        def noted(*args: Any, **kwargs: Any) -> Any:
            scope = tf.compat.v1.get_default_graph().get_name_scope()
            scopes.setdefault(outside_of_graphs(scope), names[id(layer)])
            return call(*args, **kwargs)

        return noted

    def run(*flat: tf.Tensor) -> list[tf.Tensor]:
        return signature.unpack(signature.apply(model, flat))

    with overridden_calls(model, scoped(model, noting)):
        trace(run, signature.specs())
    return scopes


def _tensors(outputs: Any, graph: tf.Graph | None) -> list[tf.Tensor]:
    """The tensors of numbers in a nest, those alone that stand in this very graph, if any."""
    flat = []
    for leaf in keras.tree.flatten(outputs):
        flat += [leaf.values, leaf.row_splits] if isinstance(leaf, tf.RaggedTensor) else [leaf]
    return [
        leaf
        for leaf in flat
        if tf.is_tensor(leaf)
        and (graph is None or leaf.graph is graph)
        and leaf.shape.rank is not None
        and (leaf.dtype.is_floating or leaf.dtype.is_integer or leaf.dtype.is_bool)
    ]


def _dims(index: int, tensor: tf.Tensor) -> tuple[int | str, ...]:
    return tuple(
        f"probe.{index}.{axis}" if size is None else size for axis, size in enumerate(tensor.shape)
    )
