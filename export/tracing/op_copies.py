"""One operation of a traced graph once more, in the graph that is being traced now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

# fmt: off
_FOLDED = frozenset([
    "Add", "AddV2", "Cast", "Equal", "FloorDiv", "FloorMod", "Greater", "GreaterEqual", "Less",
    "LessEqual", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mul", "Neg",
    "NotEqual", "Select", "SelectV2", "Sub",
])
# fmt: on
_MOST_FOLDED = 64  # numbers in an input

Dtypes = Mapping[int, int]
"""The element type to take in place of another, as TensorFlow numbers them."""


def copy_op(op: tf.Operation, inputs: Sequence[Any], dtypes: Dtypes | None = None) -> list[Any]:
    """The outputs of the same operation on other inputs.

    Args:
        op: the operation.
        inputs: what it takes instead of its own inputs.
        dtypes: element types to replace in its attributes.
    """
    attributes = {}
    for key, value in op.node_def.attr.items():
        if key.startswith("_"):
            continue  # shapes and devices of the old graph
        attributes[key] = _replace_types(value, dtypes or {})
    graph = tf.compat.v1.get_default_graph()
    given = [tf.convert_to_tensor(x) if isinstance(x, int | float) else x for x in inputs]
    outer = tf.compat.v1.get_default_graph().get_name_scope()
    name = op.name if not outer else op.name.rpartition("/")[2]
    types = [_replaced(tensor.dtype, dtypes or {}) for tensor in op.outputs]
    copy = graph.create_op(op.type, given, types, name=name, attrs=attributes)
    return list(copy.outputs)


def _replaced(dtype: tf.DType, dtypes: Dtypes) -> tf.DType:
    return tf.as_dtype(dtypes.get(dtype.as_datatype_enum, dtype.as_datatype_enum))


def _replace_types(value: Any, dtypes: Dtypes) -> Any:
    if not (value.type in dtypes or any(each in dtypes for each in value.list.type)):
        return value
    other = type(value)()
    other.CopyFrom(value)
    if value.type in dtypes:
        other.type = dtypes[value.type]
    else:
        other.list.type[:] = [dtypes.get(each, each) for each in value.list.type]
    return other


def folded(op: tf.Operation, inputs: Sequence[Any]) -> list[Any] | None:
    """The output of a small sum of constants, as a constant; None where it is none."""
    if op.type not in _FOLDED:
        return None
    values = [tf.get_static_value(x) for x in inputs]
    if any(value is None or value.size > _MOST_FOLDED for value in values):
        return None
    names = [argument.name for argument in op.op_def.input_arg]
    attributes = {"DstT": op.get_attr("DstT")} if op.type == "Cast" else {}
    with tf.init_scope():
        result = getattr(tf.raw_ops, op.type)(**dict(zip(names, values, strict=True)), **attributes)
        value = result.numpy()
    return [tf.constant(value, op.outputs[0].dtype)]
