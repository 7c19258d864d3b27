"""From a Keras model to ONNX: the only place that drives tf2onnx."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import onnx
import tensorflow as tf
from tf2onnx import optimizer, tf_loader, tfonnx

from keras_blocks.errors import ExportError
from keras_blocks.export.capture import Captured, capture
from keras_blocks.export.finish import finish
from keras_blocks.export.inner import inner_model
from keras_blocks.export.lowerings import converters
from keras_blocks.export.signature import Signature, signature_of
from keras_blocks.export.standins import STAND_IN_OP, stand_in_handler

LOWEST_OPSET, NEWEST_DIRECT_OPSET = 15, 18
DEFAULT_OPSET = NEWEST_DIRECT_OPSET

# It tries every order of an einsum's letters: minutes for a rank-5 attention.
_SKIPPED_OPTIMIZERS = frozenset({"einsum_optimizer"})


def to_onnx(
    model: keras.Model,
    signature: Signature,
    opset: int = DEFAULT_OPSET,
    layer_outputs: bool = False,
) -> tuple[onnx.ModelProto, dict[str, list[str]]]:
    """The ONNX model of a Keras model.

    Args:
        model: the Keras model.
        signature: its signature.
        opset: int, the version of the ONNX operators.
        layer_outputs: bool, whether the graph gives the outputs of the layers inside (those of
            `inner_model(model)`, in its order) in place of the model's own.

    Returns:
        The ONNX model, and for each layer the names of its tensors, in the order of computation;
        empty without `layer_outputs`.

    Raises:
        ExportError: the model has no ONNX form; with the reason.
    """
    if not layer_outputs:
        return _convert(model, signature, opset), {}
    inner, layers = inner_model(model)
    inner_signature = signature_of(inner)
    tensors: dict[str, list[str]] = {}
    for layer, spec in zip(layers, inner_signature.contract.outputs, strict=True):
        tensors.setdefault(layer, []).extend(tensor.name for tensor in spec.flat())
    return _convert(inner, inner_signature, opset), tensors


def _convert(model: keras.Model, signature: Signature, opset: int) -> onnx.ModelProto:
    if opset < LOWEST_OPSET:
        raise ExportError(f"opset_version must be at least {LOWEST_OPSET}; got {opset}")
    captured = capture(model, signature)
    converted = _run_tf2onnx(captured, model.name, min(opset, NEWEST_DIRECT_OPSET))
    return finish(converted, signature.contract, captured.inputs, captured.outputs, opset)


def _run_tf2onnx(captured: Captured, name: str, opset: int) -> onnx.ModelProto:
    handlers = {op: (converter, []) for op, converter in converters().items()}
    handlers[STAND_IN_OP] = (stand_in_handler(captured.nodes), [])
    chosen = {
        key: value
        for key, value in optimizer._get_optimizers().items()
        if key not in _SKIPPED_OPTIMIZERS
    }
    with _complaints() as complaints, tf.device("/cpu:0"):
        with tf.Graph().as_default():
            tf.import_graph_def(captured.graph_def, name="")
            graph_def = tf_loader.tf_optimize(
                captured.inputs, captured.outputs, captured.graph_def
            )
        with tf.Graph().as_default() as graph:
            tf.import_graph_def(graph_def, name="")
            converted = tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,
                opset=opset,
                custom_op_handlers=handlers,
                input_names=captured.inputs,
                output_names=captured.outputs,
            )
            converted = optimizer.optimize_graph(converted, optimizers=chosen)
    if complaints:
        raise ExportError(f"tf2onnx cannot convert the model: {'; '.join(complaints)}")
    return converted.make_model(name)


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collects the errors that tf2onnx logs where it should raise, and keeps it quiet."""
    complaints: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = record.getMessage().strip().splitlines()
            if record.levelno >= logging.ERROR and lines and lines[0] not in complaints:
                complaints.append(lines[0])

    logger = logging.getLogger("tf2onnx")
    collector, propagate, level = Collector(), logger.propagate, logger.level
    handlers = list(logger.handlers)
    logger.handlers = [collector]
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield complaints
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
