"""The shapes of what goes into branches and loops, for tf2onnx.

tf2onnx counts the condition among the inputs of a branch, so that each has the shape of the one
before it; where that cannot be it takes all for unknown, and then knows no convolution in a branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph
from tf2onnx import tf_loader

_BRANCHING = frozenset(["If", "StatelessIf", "Case", "StatelessCase"])
_LOOPS = frozenset(["While", "StatelessWhile"])

Shapes = list[tf.TensorShape]


@contextmanager
def known_branch_shapes(graph: tf.Graph) -> Iterator[None]:
    """Within the context tf2onnx knows the shapes of what a graph's functions are called on."""
    definitions = {f.signature.name: f for f in graph.as_graph_def().library.function}
    found: dict[str, Shapes] = {}
    _visit(graph, definitions, found)

    def with_shapes(definition: Any, input_shapes: Any = None, **options: Any) -> Any:
        return _as_graph(definition, found.get(definition.signature.name), **options)

    before = tf_loader.function_def_to_graph
    tf_loader.function_def_to_graph = with_shapes
    try:
        yield
    finally:
        tf_loader.function_def_to_graph = before


def _visit(graph: tf.Graph, definitions: dict[str, Any], found: dict[str, Shapes]) -> None:
    """Notes what each function is called on, from the outermost inwards."""
    for op in graph.get_operations():
        for name, shapes in _calls(op, definitions):
            known = found.get(name)
            found[name] = shapes if known is None else _common(known, shapes)
            if name in definitions and found[name] != known:
                _visit(_as_graph(definitions[name], found[name]), definitions, found)


def _calls(op: tf.Operation, definitions: dict[str, Any]) -> Iterator[tuple[str, Shapes]]:
    """The functions that an operation calls, and the shapes of what it hands them."""
    given = [tensor.shape for tensor in op.inputs]
    if op.type in _BRANCHING:
        given = given[1:]
    elif op.type in _LOOPS:
        given = _in_every_round(op, given, definitions[op.get_attr("body").name])
    for attribute in op.node_def.attr.values():
        for function in [attribute.func, *attribute.list.func]:
            if function.name:
                yield function.name, given


def _in_every_round(op: tf.Operation, given: Shapes, body: Any) -> Shapes:
    """The shapes of a loop's variables, which another round may find in another size."""
    declared = [tf.TensorShape(shape) for shape in op.get_attr("output_shapes")]
    declared = declared or [tf.TensorShape(None)] * len(given)
    names = zip(body.signature.input_arg, body.signature.output_arg, strict=True)
    kept = [body.ret[result.name] == argument.name for argument, result in names]
    return [a if same else b for same, a, b in zip(kept, given, declared, strict=True)]


def _common(one: Shapes, other: Shapes) -> Shapes:
    """What both lists of shapes are."""
    if len(one) != len(other):
        return [tf.TensorShape(None)] * len(one)
    return [a.most_specific_compatible_shape(b) for a, b in zip(one, other, strict=True)]


def _as_graph(definition: Any, shapes: Shapes | None, **options: Any) -> Any:
    if shapes is not None and len(shapes) == len(definition.signature.input_arg):
        plain = type(definition).FromString(definition.SerializeToString())
        for attributes in plain.arg_attr.values():
            # What was noted there goes before the shapes that are given, even where it is nothing.
            attributes.attr.pop("_output_shapes", None)
        try:
            return function_def_to_graph(plain, input_shapes=shapes, **options)
        except ValueError:  # the shapes do not fit what the function was traced on
            pass
    return function_def_to_graph(definition, **options)
