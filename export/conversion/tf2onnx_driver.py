"""From a Keras model to ONNX: the only place that drives tf2onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import onnx
import tensorflow as tf
from tf2onnx import optimizer, tf_loader, tfonnx
from tf2onnx.onnx_opset import math as tf2onnx_math
from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

from keras_blocks.errors import ExportError
from keras_blocks.export.conversion.branch_shapes import known_branch_shapes
from keras_blocks.export.conversion.capture import Captured, capture, weights_apart
from keras_blocks.export.conversion.exact_integers import refuse_rounded_integers
from keras_blocks.export.conversion.lookup_tables import replace_lookups
from keras_blocks.export.lowerings import converters
from keras_blocks.export.lowerings.ops.node_builder import cast
from keras_blocks.export.onnx_io.external_data import Apart
from keras_blocks.export.passes.finish import finish
from keras_blocks.export.passes.opset.newest import NEWEST_OPSET, checked_opset, direct_opset
from keras_blocks.export.signature.signature import Signature
from keras_blocks.export.tracing.call_overrides import one_at_a_time
from keras_blocks.export.tracing.stand_ins import STAND_IN_OP, stand_in_handler

# The first tries every order of an einsum's letters: minutes for a rank-5 attention. The second
# merges equal nodes, and keeps now the one, now the other; `prune` always keeps the same. The rest
# finds nothing to do in what Keras builds, and each of it goes through the whole graph twice.
_SKIPPED_OPTIMIZERS = frozenset(
    [
        "einsum_optimizer",
        "merge_duplication",
        "const_dequantize_optimizer",
        "q_dq_optimizer",
        "remove_redundant_upsample",
    ]
)
_NOT_IN_FLOAT64 = ("rewrite_layer_normalization", "rewriter_lstm_tf2")


class _Transposes(TransposeOptimizer):
    """Moves transposes as tf2onnx does, and lets those that move no element be.

    tf2onnx makes reshapes of them, by shapes that it has not kept up to date: beside a convolution
    of 1x1 images a norm was computed over the wrong axis. onnxruntime copies nothing for them.
    """

    def _add_handler(self, trans: Any, node: Any) -> Any:
        """A number is no bias of a convolution; tf2onnx fails where it tries to make one of it."""
        added = node.inputs[1]
        if added.is_const() and added.get_tensor_value(as_list=False).ndim == 0:
            return self._handle_node_having_branches(trans, node)
        return super()._add_handler(trans, node)

    def post_optimize_action(self) -> None:
        """Nothing."""


def to_onnx(
    model: keras.Model,
    signature: Signature,
    opset: int | None = None,
    apart: Apart | None = None,
) -> onnx.ModelProto:
    """The ONNX model of a Keras model.

    Args:
        model: the Keras model.
        signature: its signature.
        opset: int, the version of the ONNX operators; None takes the lowest, 17 at least, with
            which the graph is what it would be at the newest.
        apart: takes the weights of a model that is too large for one message; without it such a
            model is refused.

    Raises:
        ExportError: the model has no ONNX form; with the reason.
    """
    newest = NEWEST_OPSET if opset is None else checked_opset(opset)
    values = {} if apart is None else apart
    with one_at_a_time:
        large = [] if apart is None else weights_apart(model)
        captured = capture(model, signature, newest, large)
        converted = _run_tf2onnx(captured, model.name, direct_opset(newest))
    values |= captured.apart
    return finish(
        converted,
        signature.contract,
        captured.inputs,
        captured.outputs,
        opset,
        model.name,
        values,
    )


def _run_tf2onnx(captured: Captured, name: str, opset: int) -> onnx.ModelProto:
    handlers: dict[str, Any] = {op: (converter, []) for op, converter in converters().items()}
    handlers[STAND_IN_OP] = (stand_in_handler(captured.nodes), [])
    chosen = {
        key: value
        for key, value in optimizer._get_optimizers().items()
        if key not in _SKIPPED_OPTIMIZERS
    }
    chosen["optimize_transpose"] = _Transposes
    with _complaints() as complaints, tf.device("/cpu:0"):
        try:
            try:
                graph = _through_tf2onnx(captured, opset, handlers, chosen, catch_errors=False)
            except Exception:
                # An optimizer that fails leaves half its work: once more, each on a copy.
                graph = _through_tf2onnx(captured, opset, handlers, chosen, catch_errors=True)
            model = graph.make_model(name)
        except Exception as error:
            # What was logged before is the cause, this is only where it came to light.
            logging.getLogger("tf2onnx").error("%s", error)
    if complaints:
        raise ExportError(f"the model cannot be converted: {'; '.join(complaints)}")
    return model


def _through_tf2onnx(
    captured: Captured, opset: int, handlers: Any, optimizers: Any, catch_errors: bool
) -> Any:
    with tf.Graph().as_default():
        tf.import_graph_def(captured.graph_def, name="")
        inputs = [*captured.inputs, *captured.apart]
        graph_def = tf_loader.tf_optimize(inputs, captured.outputs, captured.graph_def)
    captured.nodes.update(replace_lookups(graph_def, captured.tables))
    with tf.Graph().as_default() as graph, _float64_as_it_is(), _whole_minima():
        tf.import_graph_def(graph_def, name="")
        with known_branch_shapes(graph):
            converted = tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,
                opset=opset,
                custom_op_handlers=handlers,
                input_names=inputs,
                output_names=captured.outputs,
            )
        refuse_rounded_integers(converted, graph_def)
        return optimizer.optimize_graph(converted, catch_errors, optimizers=optimizers)


@contextmanager
def _float64_as_it_is() -> Iterator[None]:
    """Keeps tf2onnx from making ops of what is in float64 that onnxruntime computes in float32."""

    def guarded(rewrite: Any) -> Any:
        def rewritten(graph: Any, ops: Any) -> Any:
            types = {graph.get_dtype(name) for op in ops for name in op.output}
            return ops if onnx.TensorProto.DOUBLE in types else rewrite(graph, ops)

        return rewritten

    before = {name: getattr(tfonnx, name) for name in _NOT_IN_FLOAT64}
    try:
        for name, rewrite in before.items():
            setattr(tfonnx, name, guarded(rewrite))
        yield
    finally:
        for name, rewrite in before.items():
            setattr(tfonnx, name, rewrite)


@contextmanager
def _whole_minima() -> Iterator[None]:
    """Has tf2onnx clip the ends of slices as the integers that they are, not as float32."""

    def make(
        context: Any,
        op_type: str,
        inputs: Any,
        outputs: Any,
        output_shapes: Any = None,
        output_dtypes: Any = None,
    ) -> Any:
        dtypes = output_dtypes or [context.get_dtype(inputs[0])]
        given = [cast(context, tensor, dtypes[0]) for tensor in inputs]
        options = {"outputs": outputs, "shapes": output_shapes, "dtypes": dtypes}
        return context.make_node(op_type, given, **options)

    before = tf2onnx_math.make_min_or_max_op
    try:
        tf2onnx_math.make_min_or_max_op = make
        yield
    finally:
        tf2onnx_math.make_min_or_max_op = before


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collects the errors that tf2onnx logs where it should raise, and keeps it quiet."""
    complaints: dict[str, str] = {}

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            reason = _reason(record)
            if record.levelno >= logging.ERROR and reason:
                complaints[reason] = reason

    logger, root = logging.getLogger("tf2onnx"), logging.getLogger()
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [Collector()], False
    logger.setLevel(logging.WARNING)
    # Some of its warnings go to the root logger.
    root.addFilter(_not_from_tf2onnx)
    found: list[str] = []
    try:
        yield found
        found += complaints
    finally:
        root.removeFilter(_not_from_tf2onnx)
        logger.handlers, logger.propagate, level = before
        logger.setLevel(level)


def _not_from_tf2onnx(record: logging.LogRecord) -> bool:
    return "tf2onnx" not in record.pathname


def _reason(record: logging.LogRecord) -> str:
    """One line: what an exception of ours says, else what was logged and what was raised."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, ExportError):
        return str(error)
    text = next(iter(record.getMessage().strip().splitlines()), "")
    if text.startswith("Unsupported ops"):
        return ""  # each of them has been logged before
    text = text.split(" (fct=")[0]
    return f"{text}: {error}" if error is not None else text
