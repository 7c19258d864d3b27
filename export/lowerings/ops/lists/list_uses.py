"""How the lists of a graph are used: what their elements are like, and which a Loop collects.

ONNX's Loop collects one value a round, and tf2onnx makes that of a list which is written once a
round, in order, and stacked at the end; one that is only read is a tensor. Nothing is faster.
Every other list is a tensor that goes round (see `tensor_lists`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2

_KEPT, _SHAPE = "_kept_list", "_list_elements"
_LOOPS = ("While", "StatelessWhile")
_BODIES = ("cond", "body", "then_branch", "else_branch", "branches", "f")
_DEEPEST = 8  # operations that are compared, to see that two tensors are the same


def is_kept(op: tf.Operation) -> bool:
    """Whether the list of this operation is left to tf2onnx."""
    return bool(_note(op, _KEPT))


def elements_of(op: tf.Operation) -> tf.TensorShape:
    """The shape of the elements of the list that this operation makes."""
    return tf.TensorShape(_note(op, _SHAPE))


def note_lists(graph: tf.Graph, bodies: Mapping[str, Any]) -> dict[Any, tf.TensorShape]:
    """Notes at each operation on a list whether it is left as it is, and what the elements are.

    Returns the shape of the elements of each list by the reference of its tensor.
    """
    shapes: dict[Any, tf.TensorShape] = {}
    for group in _Groups(graph, bodies).all():
        kept, shape = group.is_kept(), group.element_shape()
        shapes |= dict.fromkeys(group.tensors, shape)
        for op in group.ops:
            with op.graph.as_default():
                op._set_attr(_KEPT, _attribute(b=kept))
                op._set_attr(_SHAPE, _attribute(shape=shape.as_proto()))
    return shapes


def _attribute(**value: Any) -> Any:
    return attr_value_pb2.AttrValue(**value)


def _note(op: tf.Operation, name: str) -> Any:
    try:
        return op.get_attr(name)
    except ValueError:
        return None


@dataclass
class _Group:
    """All that is done with one list, in every graph that it comes into.

    `loops` are the loops that it goes round in, each with its body, condition and place there.
    """

    ops: list[tf.Operation] = field(default_factory=list)
    tensors: set[Any] = field(default_factory=set)
    loops: list[tuple[tf.Operation, Any, Any, int]] = field(default_factory=list)
    elsewhere: bool = False

    def element_shape(self) -> tf.TensorShape:
        """What is known of the shape of every element."""
        written, said = [], []
        for op in self.ops:
            shape = _said_shape(op)
            said += [] if shape is None else [shape]
            written += _written_shapes(op)
        known = tf.TensorShape(None)
        for position, shape in enumerate(written):
            known = shape if not position else known.most_specific_compatible_shape(shape)
        for shape in said:
            if known.is_compatible_with(shape):
                known = known.merge_with(shape)
        return known

    def is_kept(self) -> bool:
        """Whether it is one for which ONNX's Loop or tf2onnx has a form."""
        kinds = Counter(op.type for op in self.ops)
        if self.elsewhere or len(self.loops) > 1:
            return False
        made, read = kinds.pop("TensorListReserve", 0), kinds.pop("TensorListFromTensor", 0)
        if read == 1 and not made:
            return not kinds.keys() - {"TensorListGetItem"}
        written = kinds.pop("TensorListSetItem", 0)
        if (made, read, written) != (1, 0, 1) or kinds.keys() - {"TensorListStack"}:
            return False
        return bool(self.loops) and self._is_collected()

    def _is_collected(self) -> bool:
        """Whether each round writes one element, behind that of the round before."""
        (loop, body, condition, place), by_type = self.loops[0], {op.type: op for op in self.ops}
        made, write = by_type["TensorListReserve"], by_type["TensorListSetItem"]
        stack = by_type.get("TensorListStack")
        straight = (
            loop.inputs[place].op is made
            and write.graph is body
            and _origin(write.inputs[0]) is body.inputs[place]
            and _origin(body.outputs[place]) is write.outputs[0]
            and (stack is None or stack.inputs[0] is loop.outputs[place])
        )
        counters = [c for c in range(len(body.inputs)) if _counts(loop, body, c)]
        if not straight or _place(write.inputs[1], body) not in counters:
            return False
        number = made.inputs[1]
        if tf.get_static_value(number) == 0:
            return True  # it grows to as many as there are rounds
        limits = _limits(condition.outputs[0], condition, counters)
        if not limits:
            return False
        limits = [_outside(limit, loop, condition) for limit in limits]
        return all(_are_same(limit, number) for limit in limits)


class _Groups:
    """The lists of a graph and its functions."""

    def __init__(self, graph: tf.Graph, bodies: Mapping[str, Any]):
        self.bodies = bodies
        self.leaders: dict[Any, Any] = {}
        graphs = [graph, *bodies.values()]
        self.ops = [op for each in graphs for op in each.get_operations()]
        self.calls = []
        for op in self.ops:
            inner = list(_functions(op, bodies))
            self.calls += [(op, body) for body in inner]
            lists = [x for x in (*op.inputs, *op.outputs) if x.dtype == tf.variant]
            if not inner:
                self._join(lists)
            for body in inner:
                given = op.inputs[len(op.inputs) - len(body.inputs) :]
                for outer, own in zip(given, body.inputs, strict=True):
                    self._join([x for x in (outer, own) if x.dtype == tf.variant])
                if len(body.outputs) == len(op.outputs):
                    for outer, own in zip(op.outputs, body.outputs, strict=True):
                        self._join([x for x in (outer, own) if x.dtype == tf.variant])
            if op.type in _LOOPS:
                for before, after in zip(op.inputs, op.outputs, strict=True):
                    self._join([x for x in (before, after) if x.dtype == tf.variant])

    def all(self) -> list[_Group]:
        groups: dict[Any, _Group] = {}
        for op in self.ops:
            inner = list(_functions(op, self.bodies))
            for x in (*op.inputs, *op.outputs):
                if x.dtype != tf.variant:
                    continue
                group = groups.setdefault(self._leader(x.ref()), _Group())
                group.tensors.add(x.ref())
                if op.type.startswith(("TensorList", "EmptyTensorList")):
                    group.ops += [] if op in group.ops else [op]
                elif inner and op.type not in _LOOPS:
                    group.elsewhere = True
            if op.type in _LOOPS:
                condition, body = (self.bodies[op.get_attr(n).name] for n in ("cond", "body"))
                for place, x in enumerate(op.inputs):
                    if x.dtype == tf.variant:
                        groups[self._leader(x.ref())].loops.append((op, body, condition, place))
        return [group for group in groups.values() if group.ops]

    def _join(self, tensors: Sequence[tf.Tensor]) -> None:
        leaders = [self._leader(x.ref()) for x in tensors]
        for leader in leaders[1:]:
            self.leaders[self._leader(leader)] = self._leader(leaders[0])

    def _leader(self, ref: Any) -> Any:
        while self.leaders.get(ref, ref) is not ref:
            ref = self.leaders[ref]
        return ref


def _functions(op: tf.Operation, bodies: Mapping[str, Any]) -> Iterator[Any]:
    for name in _BODIES:
        value = _note(op, name)
        for each in value if isinstance(value, list) else [value]:
            inner = bodies.get(getattr(each, "name", ""))
            if inner is not None:
                yield inner


def _said_shape(op: tf.Operation) -> tf.TensorShape | None:
    """The shape of elements that an operation was told, if it is a constant."""
    for x in op.inputs:
        if x.op.name.endswith("element_shape") or "element_shape" in _argument(op, x):
            value = tf.get_static_value(x)
            if value is None:
                return None
            if value.ndim == 0:
                return tf.TensorShape(None)
            return tf.TensorShape([None if size < 0 else int(size) for size in value])
    return None


def _argument(op: tf.Operation, tensor: tf.Tensor) -> str:
    names = [argument.name for argument in op.op_def.input_arg]
    return names[[x is tensor for x in op.inputs].index(True)] if len(names) else ""


def _written_shapes(op: tf.Operation) -> list[tf.TensorShape]:
    if op.type == "TensorListSetItem":
        return [op.inputs[2].shape]
    if op.type == "TensorListPushBack":
        return [op.inputs[1].shape]
    if op.type in ("TensorListFromTensor", "TensorListScatterV2", "TensorListScatter"):
        return [op.inputs[0].shape[1:]]
    if op.type == "TensorListScatterIntoExistingList":
        return [op.inputs[1].shape[1:]]
    if op.type == "TensorListSplit" and op.inputs[0].shape.rank is not None:
        return [tf.TensorShape([None]).concatenate(op.inputs[0].shape[1:])]
    return []


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _place(tensor: tf.Tensor, graph: Any) -> int | None:
    """The place of a tensor among the inputs of a body."""
    origin = _origin(tensor)
    return next((k for k, given in enumerate(graph.inputs) if given is origin), None)


def _counts(loop: tf.Operation, body: Any, place: int) -> bool:
    """Whether a state of a loop is 0, 1, 2, ..."""
    if body.inputs[place].dtype not in (tf.int32, tf.int64):
        return False
    if tf.get_static_value(_origin(loop.inputs[place])) != 0:
        return False
    after = _origin(body.outputs[place]).op
    if after.type not in ("Add", "AddV2"):
        return False
    steps = [tf.get_static_value(x) for x in after.inputs if _place(x, body) != place]
    return len(steps) == 1 and steps[0] == 1


def _limits(tensor: tf.Tensor, condition: Any, counters: Sequence[int]) -> list[tf.Tensor] | None:
    """What counters stay below while the loop goes on; None where that is not all."""
    op = _origin(tensor).op
    if op.type == "LogicalAnd":
        parts = [_limits(x, condition, counters) for x in op.inputs]
        return None if None in parts else [limit for part in parts for limit in part or []]
    if op.type == "Less" and _place(op.inputs[0], condition) in counters:
        return [op.inputs[1]]
    return None


def _outside(tensor: tf.Tensor, loop: tf.Operation, condition: Any) -> tf.Tensor:
    place = _place(tensor, condition)
    return tensor if place is None else loop.inputs[place]


def _are_same(a: tf.Tensor, b: tf.Tensor, depth: int = _DEEPEST) -> bool:
    """Whether two tensors are computed alike."""
    a, b = _origin(a), _origin(b)
    if a is b:
        return True
    values = tf.get_static_value(a), tf.get_static_value(b)
    if values[0] is not None and values[1] is not None:
        return bool(values[0] == values[1]) if values[0].ndim == 0 else False
    if not depth or a.op.type != b.op.type or not len(a.op.inputs) or a.op.type in _LOOPS:
        return False
    return len(a.op.inputs) == len(b.op.inputs) and all(
        _are_same(x, y, depth - 1) for x, y in zip(a.op.inputs, b.op.inputs, strict=True)
    )
