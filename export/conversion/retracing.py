"""Traces a frozen graph anew, with other operations in place of those that have no ONNX form.

The graph is run op by op in a trace. Most operations are copied; what is computed from a few
constants (the ranks and axes of code for any rank) is computed at once; loops and branches are
entered; and what has a rewrite (see `lowerings.registry`) becomes what that makes of it. A rewrite
may give values of its own making, such as a pair of reals for a complex number; its kind has the
rewrites for whatever reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings import exact_form_of, rewrite_of
from keras_blocks.export.lowerings.ops.lists.list_uses import note_lists
from keras_blocks.export.lowerings.values import Value, invariant_of, is_composite, refined
from keras_blocks.export.tracing.op_copies import copy_op, folded

_LOOPS = ("While", "StatelessWhile")
_BRANCHES = ("If", "StatelessIf")
_CASES = ("Case", "StatelessCase")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class Retracing:
    """A frozen graph that can be run again.

    Args:
        graph_def: the graph, with its library of functions.
        inputs, outputs: the names of its tensors.
        given: tensors to take for placeholders of the graph, by name.
        in_float64: bool, whether what is float32 is computed in float64; TensorFlow then runs it,
            and only what it has no kernels for is rewritten.
    """

    def __init__(
        self,
        graph_def: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        given: Any,
        in_float64: bool = False,
    ):
        self.in_float64 = in_float64
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.import_graph_def(graph_def, name="")
            self.bodies = {
                function.signature.name: function_def_to_graph(function)
                for function in graph_def.library.function
            }
        self.elements = note_lists(self.graph, self.bodies)
        self.inputs = [self.graph.get_tensor_by_name(name) for name in inputs]
        self.outputs = [self.graph.get_tensor_by_name(name) for name in outputs]
        self.given = {self.graph.get_tensor_by_name(f"{n}:0").ref(): t for n, t in given.items()}

    @property
    def needed(self) -> bool:
        """Whether an operation has to be rewritten."""
        graphs = (self.graph, *self.bodies.values())
        return None in [tensor.shape.rank for tensor in self.outputs] or any(
            op.type in _CASES
            or rewrite_of(op, ()) is not None
            or any(tensor.dtype.is_complex for tensor in op.outputs)
            for graph in graphs
            for op in graph.get_operations()
        )

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """What it takes."""
        return [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.inputs]

    def run(self, *flat: tf.Tensor) -> list[tf.Tensor]:
        """The outputs for these inputs."""
        if self.in_float64:
            flat = tuple(tf.cast(x, "float64") if x.dtype == tf.float32 else x for x in flat)
        values = {tensor.ref(): x for tensor, x in zip(self.inputs, flat, strict=True)}
        results = self._run(self.outputs, values | self.given)
        for tensor, value in zip(self.outputs, results, strict=True):
            if is_composite(value):
                raise ExportError(
                    f"'{tensor.op.name}' gives {tensor.dtype.name} values out of the model, and "
                    "exported models give real numbers only. Give the real and the imaginary part."
                )
        return results

    def _call(self, graph: Any, arguments: Sequence[Value]) -> list[Value]:
        values = {x.ref(): value for x, value in zip(graph.inputs, arguments, strict=True)}
        return self._run(graph.outputs, values)

    def _run(self, wanted: Sequence[tf.Tensor], values: dict[Any, Value]) -> list[Value]:
        if not wanted:
            return []
        needed = _reached(wanted, values)
        for op in wanted[0].graph.get_operations():
            if op in needed:
                given = [values[tensor.ref()] for tensor in op.inputs]
                for tensor, value in zip(op.outputs, self._results(op, given), strict=True):
                    values[tensor.ref()] = refined(value, tensor)
        return [values[tensor.ref()] for tensor in wanted]

    def _results(self, op: tf.Operation, given: list[Value]) -> Sequence[Value]:
        if op.type in _LOOPS:
            return self._loop(op, given)
        if op.type in _BRANCHES:
            names = ("then_branch", "else_branch")
            yes, no = (self.bodies[op.get_attr(name).name] for name in names)
            chosen, rest = tf.cast(given[0], "bool"), given[1:]
            known = tf.get_static_value(chosen)
            if known is not None:
                return self._call(yes if known else no, rest)
            return tf.cond(chosen, lambda: self._call(yes, rest), lambda: self._call(no, rest))
        if op.type in _CASES:
            bodies = [self.bodies[branch.name] for branch in op.get_attr("branches")]
            return self._case(given[0], bodies, given[1:])
        if op.type in _CALLS:
            return self._call(self.bodies[op.get_attr("f").name], given)
        if op.type == "Identity" and is_composite(given[0]):
            return given
        rewrite = exact_form_of(op) if self.in_float64 else rewrite_of(op, given)
        if rewrite is None and self.in_float64:
            return _widened(op, given)
        if rewrite is None:
            if any(map(is_composite, given)):
                raise ExportError(
                    f"node '{op.name}' takes {_kinds(given)} in {op.type}, which has no ONNX form "
                    "here. Take what it needs as plain tensors first."
                )
            return folded(op, given) or copy_op(op, given)
        with tf.name_scope(f"{op.name}/"):
            results = rewrite(op, *given)
        return results if isinstance(results, list) else [results]

    def _case(self, index: tf.Tensor, bodies: Sequence[Any], given: Sequence[Value]) -> list[Value]:
        """An index that is none of the others' takes the last branch."""

        def chosen(first: int) -> list[Value]:
            if first == len(bodies) - 1:
                return self._call(bodies[first], given)
            return tf.cond(
                tf.equal(index, first),
                lambda: self._call(bodies[first], given),
                lambda: chosen(first + 1),
            )

        return chosen(0)

    def _loop(self, op: tf.Operation, given: list[Value]) -> list[Value]:
        """What goes round unchanged is read from outside."""
        condition, body = (self.bodies[op.get_attr(name).name] for name in ("cond", "body"))
        ends = [_origin(tensor).ref() for tensor in body.outputs]
        changing = [k for k, tensor in enumerate(body.inputs) if ends[k] != tensor.ref()]
        if not changing:
            return given

        def state(values: Sequence[Value]) -> list[Value]:
            whole = list(given)
            for k, value in zip(changing, values, strict=True):
                whole[k] = value
            return whole

        def step(*values: Value) -> list[Value]:
            after = self._call(body, state(values))
            return [after[k] for k in changing]

        results = tf.while_loop(
            lambda *values: self._call(condition, state(values))[0],
            step,
            [given[k] for k in changing],
            shape_invariants=[
                invariant_of(given[k], op.outputs[k], self.elements.get(op.inputs[k].ref()))
                for k in changing
            ],
        )
        return state(results)


def _widened(op: tf.Operation, given: list[Value]) -> list[Value]:
    if op.type == "Const" and op.outputs[0].dtype == tf.float32:
        return [tf.constant(tf.make_ndarray(op.get_attr("value")), "float64")]
    return copy_op(op, given, {tf.float32.as_datatype_enum: tf.float64.as_datatype_enum})


def _reached(wanted: Sequence[tf.Tensor], values: dict[Any, Value]) -> set[tf.Operation]:
    """The operations that the wanted tensors are computed by, from those that have values."""
    found: set[tf.Operation] = set()
    open_ends = list(wanted)
    while open_ends:
        tensor = open_ends.pop()
        if tensor.ref() not in values and tensor.op not in found:
            found.add(tensor.op)
            open_ends += tensor.op.inputs
    return found


def _origin(tensor: tf.Tensor) -> tf.Tensor:
    while tensor.op.type == "Identity":
        tensor = tensor.op.inputs[0]
    return tensor


def _kinds(given: Sequence[Value]) -> str:
    return " and ".join(sorted({value.kind for value in given if is_composite(value)}))
