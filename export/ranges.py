"""Which values a model's inputs may take, seen from the layers that read them.

While the model is traced, layers that are particular about their input note it: an embedding its
ids, a tree mechanism its parents. Each note is then led back through casts and reshapes to the
input that it came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.export.hooks import Call, replaced_calls

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


@dataclass(frozen=True)
class ValueRange:
    """The least and greatest allowed value; of a tree's parents, the input that holds its features
    and how many children a node may have."""

    minimum: float | None = None
    maximum: float | None = None
    tree_of: int | None = None
    max_children: int | None = None


@dataclass
class Reads:
    """The notes of one trace."""

    ids: list[tuple[tf.Tensor, int]] = field(default_factory=list)
    trees: list[tuple[tf.Tensor, tf.Tensor, int | None]] = field(default_factory=list)

    @contextmanager
    def watch(self, model: keras.Model) -> Iterator[None]:
        """Takes notes while the model is called."""
        with replaced_calls(model, self._noting):
            yield

    def ranges(self, inputs: list[tf.Tensor]) -> dict[int, ValueRange]:
        """The ranges by the position of the input; `tree_of` is a position too."""
        position = {tensor.name: index for index, tensor in enumerate(inputs)}
        found: dict[int, ValueRange] = {}
        for tensor, input_dim in self.ids:
            index = position.get(_origin(tensor))
            if index is not None:
                known = found[index].maximum if index in found else None
                last = input_dim - 1
                found[index] = ValueRange(0, last if known is None else min(known, last))
        for parents, row_splits, arity in self.trees:
            index, rows = position.get(_origin(parents)), position.get(_origin(row_splits))
            if index is not None and rows is not None:
                # The row splits of an input follow its values.
                known = found[index].max_children if index in found else None
                most = min((n for n in (known, arity) if n is not None), default=None)
                found[index] = ValueRange(minimum=-1, tree_of=rows - 1, max_children=most)
        return found

    def _noting(self, layer: keras.layers.Layer) -> Call | None:
        if isinstance(layer, keras.layers.Embedding | kb.Embedding):
            return _before(layer.call, lambda x: self._note_ids(x, layer.input_dim))
        if isinstance(layer, kb.TreeRecursive):
            return _before(layer.call, lambda x: self._note_tree(x, layer.cell.arity))
        return None

    def _note_ids(self, inputs: Any, input_dim: int) -> None:
        values = inputs.values if isinstance(inputs, tf.RaggedTensor) else inputs
        if isinstance(values, tf.Tensor):
            self.ids.append((values, input_dim))

    def _note_tree(self, inputs: Any, arity: int | None) -> None:
        features, parents = inputs[:2]
        if isinstance(features, tf.RaggedTensor) and isinstance(parents, tf.RaggedTensor):
            self.trees.append((parents.values, features.row_splits, arity))


def _before(call: Call, note: Callable[[Any], None]) -> Call:
    def noted(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        note(inputs)
        return call(inputs, *args, **kwargs)

    return noted


def _origin(tensor: tf.Tensor) -> str:
    """The name of the tensor that the elements come from."""
    while tensor.op.type in _HANDS_ON:
        tensor = tensor.op.inputs[0]
    return tensor.name
