"""Stand-ins: nodes of a traced graph that the conversion replaces by ONNX nodes of our making.

A lowering calls `onnx_node` while the model is traced. The graph then holds a `PyFunc` with the
same inputs and outputs, and the conversion puts the ONNX node in its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from keras_blocks.errors import ExportError
from keras_blocks.export.passes.opset.newest import NEWEST_OPSET

STAND_IN_OP = "PyFunc"
EMPTY = ""


@dataclass(frozen=True)
class OnnxNode:
    """What a stand-in becomes. `inputs` has the index of each given tensor, None where absent."""

    op_type: str
    inputs: tuple[int | None, ...]
    attributes: Mapping[str, Any]
    domain: str = ""


@dataclass(eq=False)
class _Table:
    """The nodes of one export by token, and the opset that its file is to have."""

    opset: int
    nodes: dict[str, OnnxNode] = field(default_factory=dict)


# Of each thread its own: several may export at once.
_open_table: ContextVar[_Table | None] = ContextVar("stand_ins", default=None)
# Never the same twice: a function that was traced in an earlier export must not find a node of this
# one under its token. Counting on is one step, which no other thread interrupts.
_numbers = itertools.count()


@contextmanager
def stand_ins(opset: int = NEWEST_OPSET) -> Any:
    """Within the context, `onnx_node` works; gives the table from tokens to nodes."""
    table = _Table(opset)
    before = _open_table.set(table)
    try:
        yield table.nodes
    finally:
        _open_table.reset(before)


def target_opset() -> int:
    """The opset of the file that is being made: a lowering may need an op that came late."""
    table = _open_table.get()
    return NEWEST_OPSET if table is None else table.opset


def onnx_node(
    op_type: str,
    inputs: Sequence[tf.Tensor | None],
    outputs: Sequence[tf.TensorSpec],
    domain: str = "",
    **attributes: Any,
) -> list[tf.Tensor]:
    """An ONNX node in the midst of TensorFlow code that is being exported.

    Args:
        op_type: str, the ONNX op, such as `"GRU"`.
        inputs: the tensors it takes; None for an optional input that is left out.
        outputs: the shape and element type of each tensor that it gives.
        domain: str, the domain of the op; empty for ONNX's own.
        **attributes: the attributes of the node.

    Returns:
        The output tensors. They have no values here: only the exported file computes them.
    """
    table = _open_table.get()
    if table is None:
        raise ExportError(f"onnx_node('{op_type}') works in an export only")
    token = f"keras_blocks.{next(_numbers)}"
    inputs = list(inputs)
    while inputs and inputs[-1] is None:
        inputs.pop()  # an empty name at the end makes onnxruntime crash in some ops
    given = [tensor for tensor in inputs if tensor is not None]
    positions = iter(range(len(given)))
    slots = tuple(None if tensor is None else next(positions) for tensor in inputs)
    table.nodes[token] = OnnxNode(op_type, slots, attributes, domain)
    results = tf.raw_ops.PyFunc(input=given, token=token, Tout=[spec.dtype for spec in outputs])
    # The shape of a PyFunc is lost when the graph is frozen, that of an EnsureShape is not.
    return [tf.ensure_shape(y, spec.shape) for y, spec in zip(results, outputs, strict=True)]


def as_written(op_type: str, *inputs: tf.Tensor) -> tf.Tensor:
    """A node of broadcast arithmetic that no optimizer puts into another order.

    TensorFlow's makes x * (1 / c) of x / c, and moves constants through sums: another rounding,
    which may be another pixel.
    """
    shape = inputs[0].shape
    for x in inputs[1:]:
        shape = tf.broadcast_static_shape(shape, x.shape)
    return onnx_node(op_type, inputs, [tf.TensorSpec(shape, inputs[0].dtype)])[0]


def stand_in_handler(table: Mapping[str, OnnxNode]) -> Any:
    """The tf2onnx handler that replaces the stand-ins of this table."""

    def handle(context: Any, node: Any, name: str, args: Any) -> None:
        token = node.get_attr_value("token").decode()
        if token not in table:
            raise ExportError(
                f"node '{name}' calls Python code (tf.py_function or tf.numpy_function), "
                "which no ONNX file can hold"
            )
        onnx = table[token]
        given, outputs = list(node.input), list(node.output)
        shapes = [context.get_shape(output) for output in outputs]
        dtypes = [context.get_dtype(output) for output in outputs]
        context.remove_node(name)
        context.make_node(
            onnx.op_type,
            [EMPTY if slot is None else given[slot] for slot in onnx.inputs],
            attr=dict(onnx.attributes),
            outputs=outputs,
            shapes=shapes,
            dtypes=dtypes,
            name=name,
            domain=onnx.domain,
        )

    return handle
