"""Lists of tensors (`tf.TensorArray`) as one tensor, with the elements along its first axis.

Whatever is written, read, stacked or joined, in whatever order and from inside any loops, is a
scatter, a gather or a reshape of it. Sizes of elements that are not known when the list is made
grow to those of what is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.ops.lists.list_uses import elements_of, is_kept
from keras_blocks.export.lowerings.registry import rewrites
from keras_blocks.export.lowerings.values import TensorList


def _is_rewritten(op: tf.Operation, given: Any) -> bool:
    return not is_kept(op)


def _rewrites(*op_types: str) -> Any:
    return rewrites(*op_types, when=_is_rewritten)


@_rewrites("TensorListReserve")
def reserve(op: tf.Operation, shape: tf.Tensor, number: tf.Tensor) -> TensorList:
    """As many elements of zeros."""
    known = elements_of(op)
    if known.rank is None:
        raise ExportError(
            f"node '{op.name}' makes a list of tensors (tf.TensorArray) of which not even the rank "
            "is known. Say it: tf.TensorArray(..., element_shape=(None, 4))."
        )
    dtype = tf.as_dtype(op.get_attr("element_dtype"))
    return _zeros(number, [size or 0 for size in known], dtype)


@_rewrites("EmptyTensorList")
def make_empty(op: tf.Operation, shape: tf.Tensor, most: tf.Tensor) -> TensorList:
    """No elements."""
    return reserve(op, shape, tf.constant(0))


def _zeros(number: tf.Tensor, sizes: list[int], dtype: tf.DType) -> TensorList:
    shape = tf.concat([tf.reshape(number, [1]), tf.constant(sizes, tf.int32)], 0)
    elements = tf.fill(shape, tf.zeros((), dtype))
    static = tf.get_static_value(number)
    elements.set_shape([None if static is None else int(static), *sizes])
    return TensorList(elements, tf.fill(tf.reshape(number, [1]), 0))


@_rewrites("TensorListFromTensor")
def unstack(op: tf.Operation, tensor: tf.Tensor, shape: tf.Tensor) -> TensorList:
    """The tensor itself."""
    sizes = tf.shape(tensor)
    rows = sizes[1] if tensor.shape.rank > 1 else tf.constant(0)
    return TensorList(tensor, tf.fill(sizes[:1], rows))


@_rewrites("TensorListSetItem")
def write(op: tf.Operation, items: TensorList, index: tf.Tensor, value: tf.Tensor) -> TensorList:
    """The element in its place; a list that may grow grows to it."""
    if op.get_attr("resize_if_index_out_of_bounds"):
        items = _resize(items, tf.maximum(tf.shape(items.rows)[0], index + 1))
    elements, value = _fit(op, items.elements, value)
    place = tf.reshape(index, [1, 1])
    written = tf.tensor_scatter_nd_update(elements, place, value[None])
    rows = tf.shape(value)[:1] if value.shape.rank else tf.constant([0])
    return TensorList(written, tf.tensor_scatter_nd_update(items.rows, place, rows))


@_rewrites("TensorListPushBack")
def push(op: tf.Operation, items: TensorList, value: tf.Tensor) -> TensorList:
    """The element behind all others."""
    elements, padded = _fit(op, items.elements, value)
    rows = tf.shape(value)[:1] if value.shape.rank else tf.constant([0])
    return TensorList(tf.concat([elements, padded[None]], 0), tf.concat([items.rows, rows], 0))


@_rewrites("TensorListPopBack")
def pop(op: tf.Operation, items: TensorList, shape: tf.Tensor) -> list[Any]:
    """The list without its last element, and that."""
    last = tf.shape(items.rows)[0] - 1
    return [TensorList(items.elements[:-1], items.rows[:-1]), read(op, items, last, shape)]


@_rewrites("TensorListGetItem")
def read(op: tf.Operation, items: TensorList, index: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """One element, without what was put behind it to be as long as the others."""
    element = tf.gather(items.elements, index)
    known = elements_of(op)
    if known.rank and known[0] is None:
        return element[: tf.gather(items.rows, index)]
    return element


@_rewrites("TensorListStack")
def stack(op: tf.Operation, items: TensorList, shape: tf.Tensor) -> tf.Tensor:
    """All elements."""
    return tf.identity(items.elements)


@_rewrites("TensorListGather")
def gather(op: tf.Operation, items: TensorList, places: Any, shape: Any) -> tf.Tensor:
    """Some elements."""
    return tf.gather(items.elements, places)


@_rewrites("TensorListLength")
def count(op: tf.Operation, items: TensorList) -> tf.Tensor:
    """How many elements there are."""
    return tf.shape(items.rows)[0]


@_rewrites("TensorListElementShape")
def shape_of_elements(op: tf.Operation, items: TensorList) -> tf.Tensor:
    """The shape of an element."""
    return tf.shape(items.elements, op.outputs[0].dtype)[1:]


@_rewrites("TensorListResize")
def resize(op: tf.Operation, items: TensorList, number: tf.Tensor) -> TensorList:
    """The first elements, and zeros for those that are missing."""
    return _resize(TensorList(items.elements[:number], items.rows[:number]), number)


@_rewrites("TensorListScatterV2")
def scatter(op: tf.Operation, values: Any, places: Any, shape: Any, number: Any) -> TensorList:
    """Elements in their places."""
    number = tf.maximum(number, tf.reduce_max(places) + 1)
    sizes = tf.shape(values)
    target = tf.fill(tf.concat([number[None], sizes[1:]], 0), tf.zeros((), values.dtype))
    rows = sizes[1] if values.shape.rank > 1 else tf.constant(0)
    return TensorList(
        tf.tensor_scatter_nd_update(target, places[:, None], values),
        tf.fill(number[None], rows),
    )


@_rewrites("TensorListScatterIntoExistingList")
def scatter_into(op: tf.Operation, items: TensorList, values: Any, places: Any) -> TensorList:
    """Elements in their places of a list."""
    items = _resize(items, tf.maximum(tf.shape(items.rows)[0], tf.reduce_max(places) + 1))
    sizes = tf.shape(values)
    rows = tf.fill(sizes[:1], sizes[1] if values.shape.rank > 1 else tf.constant(0))
    return TensorList(
        tf.tensor_scatter_nd_update(items.elements, places[:, None], values),
        tf.tensor_scatter_nd_update(items.rows, places[:, None], rows),
    )


@_rewrites("TensorListSplit")
def split(op: tf.Operation, tensor: tf.Tensor, shape: Any, lengths: tf.Tensor) -> TensorList:
    """Parts of the first axis, each with its own number of rows."""
    rows = tf.cast(lengths, "int32")
    steps = tf.range(tf.reduce_max(rows))[None]
    places = tf.cumsum(rows, exclusive=True)[:, None] + steps
    inside = steps < rows[:, None]
    last = tf.shape(tensor)[0] - 1
    parts = tf.gather(tensor, tf.where(inside, places, tf.fill(tf.shape(places), last)))
    there = tf.reshape(inside, tf.concat([tf.shape(inside), [1] * (tensor.shape.rank - 1)], 0))
    return TensorList(tf.where(there, parts, tf.zeros((), tensor.dtype)), rows)


@_rewrites("TensorListConcat", "TensorListConcatV2")
def join(op: tf.Operation, items: TensorList, *more: Any) -> list[tf.Tensor]:
    """The rows of all elements behind one another, and how many each has."""
    sizes = tf.shape(items.elements)
    rows = tf.reshape(items.elements, tf.concat([[sizes[0] * sizes[1]], sizes[2:]], 0))
    there = tf.range(sizes[1])[None] < items.rows[:, None]
    places = tf.where(tf.reshape(there, [-1]))[:, 0]
    return [tf.gather(rows, places), tf.cast(items.rows, "int64")]


def _fit(op: tf.Operation, elements: tf.Tensor, value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Elements and a value with zeros behind, so that their sizes are the same."""
    known = elements_of(op)
    if known.is_fully_defined():
        return elements, value
    sizes, wanted = tf.shape(elements)[1:], tf.shape(value)
    largest = tf.maximum(sizes, wanted)
    behind = tf.pad(largest - sizes, [[1, 0]])
    elements = tf.pad(elements, tf.stack([tf.zeros_like(behind), behind], 1))
    if value.shape.rank:
        behind = largest - wanted
        value = tf.pad(value, tf.stack([tf.zeros_like(behind), behind], 1))
    elements.set_shape([None, *known])
    value.set_shape(known)
    return elements, value


def _resize(items: TensorList, number: tf.Tensor) -> TensorList:
    """With zeros for the elements that are missing; it has no more than that."""
    more = number - tf.shape(items.rows)[0]
    paddings = np.zeros((items.elements.shape.rank, 2), "int32")
    first = tf.scatter_nd([[0, 1]], tf.reshape(more, [1]), paddings.shape)
    return TensorList(tf.pad(items.elements, first), tf.pad(items.rows, [[0, more]]))
