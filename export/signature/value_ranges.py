"""Which values a model's inputs may take, seen from the layers that read them.

While the model is traced, layers that are particular about their input note it: an embedding its
ids, a tree mechanism its inputs. Each note is then led back through casts and reshapes to the
input that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.tracing.call_overrides import (
    Call,
    first_in_place,
    overridden_calls,
    own_call,
)
from keras_blocks.export.tracing.minimum_sizes import (
    ask,
    ask_for_a_step,
    ask_for_windows,
    least_sizes,
)

# These hand their first input's elements on unchanged.
_HANDS_ON = frozenset(
    [
        "Cast",
        "EnsureShape",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "Reshape",
        "Slice",
        "Squeeze",
        "StridedSlice",
        "Transpose",
        "StopGradient",
        "Snapshot",
    ]
)
_OVER_ALL_STEPS = (
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)
_WINDOWS = (
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)


@dataclass(frozen=True)
class ValueRange:
    """What `TensorSpec` says of the values under the same names; other inputs by their position."""

    minimum: float | None = None
    maximum: float | None = None
    tree_of: int | None = None
    max_children: int | None = None
    forest: bool = False
    leaves_of: int | None = None
    edges_of: int | None = None
    edge_labels: int | None = None
    siblings_differ: bool = False
    padding: float | None = None
    least: tuple[int, ...] = ()


@dataclass
class InputUsage:
    """The notes of one trace: what embeddings, trees and what masks steps were called on."""

    ids: list[tuple[tf.Tensor, int]] = field(default_factory=list)
    masked: list[tuple[tf.Tensor, float]] = field(default_factory=list)
    mask_is_dropped: bool = False
    trees: list[tuple[kb.TreeRecursive, list[tf.RaggedTensor]]] = field(default_factory=list)

    @contextmanager
    def watch(self, model: keras.Model) -> Iterator[None]:
        """Takes notes while the model is called."""
        with overridden_calls(model, self._noting), overridden_calls(model, self._noting_dropped):
            yield

    def ranges(self, inputs: list[tf.Tensor]) -> dict[int, ValueRange]:
        """The ranges by the position of the input, whose row splits follow its values."""
        position = {_place(tensor): index for index, tensor in enumerate(inputs)}
        found: dict[int, ValueRange] = {}
        for tensor, input_dim in self.ids:
            index = position.get(origin_of(tensor))
            if index is not None:
                known = found.get(index, ValueRange())
                last = _least(known.maximum, input_dim - 1)
                found[index] = replace(known, minimum=0, maximum=last)
        for layer, tensors in self.trees:
            _add_tree(found, position, layer, tensors)
        for tensor, value in () if self.mask_is_dropped else self.masked:
            index = position.get(origin_of(tensor))
            if index is not None:
                found[index] = replace(found.get(index, ValueRange()), padding=value)
        for index, tensor in enumerate(inputs):
            least = least_sizes(tensor)
            if any(least):
                found[index] = replace(found.get(index, ValueRange()), least=least)
        return found

    def _noting(self, layer: keras.layers.Layer) -> Call | None:
        if isinstance(layer, keras.layers.Embedding | kb.Embedding):
            return _before(layer, lambda x: self._note_ids(x, layer), _looks_up)
        if isinstance(layer, keras.layers.Masking):
            return _before(layer, lambda x: self.masked.append((x, layer.mask_value)))
        if isinstance(layer, _WINDOWS) and layer.padding == "valid":
            return _before(layer, lambda x: ask_for_windows(layer, x))
        if isinstance(layer, _OVER_ALL_STEPS):
            return _before(layer, lambda x: ask_for_a_step(layer, x))
        if isinstance(layer, keras.layers.CategoryEncoding) and layer.output_mode == "one_hot":
            return _before(layer, _ask_for_two_steps)
        if isinstance(layer, kb.TreeRecursive):
            return _before(layer, lambda x: self._note_tree(x, layer))
        return None

    def _noting_dropped(self, layer: keras.layers.Layer) -> Call | None:
        if layer.supports_masking:
            return None
        call = own_call(layer)

        def noted(*args: Any, **kwargs: Any) -> Any:
            given = keras.tree.flatten((args, kwargs))
            self.mask_is_dropped |= any(getattr(x, "_keras_mask", None) is not None for x in given)
            return call(*args, **kwargs)

        return noted

    def _note_ids(self, inputs: Any, layer: keras.layers.Layer) -> None:
        values = inputs.values if isinstance(inputs, tf.RaggedTensor) else inputs
        self.ids.append((values, layer.input_dim))
        if layer.mask_zero:
            self.masked.append((values, 0))

    def _note_tree(self, inputs: Any, layer: kb.TreeRecursive) -> None:
        if all(isinstance(tensor, tf.RaggedTensor) for tensor in inputs):
            self.trees.append((layer, list(inputs)))


def _ask_for_two_steps(inputs: Any) -> None:
    """A one-hot encoding drops a last axis of one step, and keeps any other."""
    last = inputs.shape.rank - 1
    if last > 0:
        ask(inputs, {last: 2})


def _add_tree(
    found: dict[int, ValueRange],
    position: dict[Any, int],
    layer: kb.TreeRecursive,
    tensors: list[tf.RaggedTensor],
) -> None:
    """Adds what one layer asks of its inputs to what others do."""
    features, parents, *edges = tensors
    index = position.get(origin_of(parents.values))
    if index is None:
        return
    rows = position.get(origin_of(features.row_splits))
    of_rows = None if rows is None else rows - 1
    on_leaves = layer.features_on == "leaves"
    known = found.get(index, ValueRange())
    first = known.tree_of is None
    tree_of = known.tree_of if on_leaves or of_rows is None else of_rows
    found[index] = ValueRange(
        minimum=-1,
        tree_of=index if tree_of is None else tree_of,
        max_children=_least(known.max_children, layer.cell.arity),
        forest=layer.forests == "sum" and (first or known.forest),
    )
    if on_leaves and of_rows is not None and of_rows != index:
        found[of_rows] = replace(found.get(of_rows, ValueRange()), leaves_of=index)
    if edges:
        _add_edges(found, position.get(origin_of(edges[0].values)), index, layer)


def _add_edges(
    found: dict[int, ValueRange], edges: int | None, parents: int, layer: kb.TreeRecursive
) -> None:
    if edges is None or edges == parents:
        return
    known = found.get(edges, ValueRange())
    arity = layer.cell.arity
    found[edges] = noted = replace(
        known,
        edges_of=parents,
        edge_labels=_least(known.edge_labels, layer.cell.edge_labels if arity is None else arity),
        siblings_differ=known.siblings_differ or arity is not None,
    )
    if noted.siblings_differ:
        most = _least(found[parents].max_children, noted.edge_labels)
        found[parents] = replace(found[parents], max_children=most)


def _least(*limits: Any) -> Any:
    """The strictest of these limits; None is none."""
    return min((limit for limit in limits if limit is not None), default=None)


def _before(
    layer: keras.layers.Layer,
    note: Callable[[Any], None],
    applies: Callable[..., bool] = lambda *_, **__: True,
) -> Call:
    """The layer's call, with a note of its first argument where that comes of an input."""
    call = own_call(layer)

    def noted(*args: Any, **kwargs: Any) -> Any:
        placed, named = first_in_place(layer, args, kwargs)
        if placed and _is_traced(placed[0]) and applies(*placed, **named):
            note(placed[0])
        return call(*args, **kwargs)

    return noted


def _looks_up(inputs: Any, reverse: bool = False, **_: Any) -> bool:
    """Whether an embedding reads ids, and not vectors that it is to find the words for."""
    return not reverse


def _is_traced(argument: Any) -> bool:
    """Whether it is made of tensors of a graph: constants, weights and arrays come of no input."""
    parts = keras.tree.flatten(argument)
    flat = [part.values if isinstance(part, tf.RaggedTensor) else part for part in parts]
    return bool(flat) and all(map(tf.is_symbolic_tensor, flat))


def origin_of(tensor: tf.Tensor) -> tuple[Any, str]:
    """The place of the tensor that the elements come from."""
    while tensor.op.type in _HANDS_ON:
        tensor = tensor.op.inputs[0]
    return _place(tensor)


def _place(tensor: tf.Tensor) -> tuple[Any, str]:
    """The graph and the name in it: that of a loop's body may have the same names."""
    return tensor.graph, tensor.name
