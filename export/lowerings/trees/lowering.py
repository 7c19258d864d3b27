"""Recursion over trees with the ONNX operations that TensorFlow's do not become by themselves."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import keras_blocks as kb
from keras_blocks.errors import ExportError
from keras_blocks.export.lowerings.registry import lowers
from keras_blocks.export.lowerings.trees.upward import LevelClimb
from keras_blocks.export.tracing.call_overrides import Call
from keras_blocks.export.tracing.stand_ins import onnx_node
from keras_blocks.mechanisms.trees.kernels import TreeKernels, use_kernels

_NATIVE_PRODUCTS = (tf.float32, tf.float64)


@lowers(kb.TreeRecursive)
def lower_tree_recursive(layer: kb.TreeRecursive) -> Call:
    """The layer itself, with its operations in their ONNX form."""
    own_call = layer.call

    def call(inputs: Any, training: bool | None = None) -> Any:
        _refuse_scheduled(layer, inputs[1])
        with use_kernels(OnnxOps()):
            return own_call(inputs, training=False)

    return call


def _refuse_scheduled(layer: kb.TreeRecursive, parents: Any) -> None:
    if parents.shape.rank == 3:
        raise ExportError(
            f"layer '{layer.name}' takes parents that trees.schedule prepared for a pipeline, "
            f"which no file can ask of whoever runs it. Export the same model on plain parents: "
            f"build a second one on keras.Input((None,), dtype='int32', ragged=True) with the same "
            f"layer objects, which share their weights."
        )


class OnnxOps(TreeKernels):
    """The operations as ONNX nodes."""

    gates_apart = True
    climb = LevelClimb

    def writer(self, row: Any, dtype: Any) -> Any:
        """An ONNX sequence, which costs no copy of what is in it."""
        return _Sequence(row, dtype)

    def product(self, vectors: tf.Tensor, kernel: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
        """A Gemm, which onnxruntime fuses with the nonlinearity behind it."""
        if vectors.dtype not in _NATIVE_PRODUCTS:
            return super().product(vectors, kernel, added)
        spec = tf.TensorSpec([vectors.shape[0], kernel.shape[1]], vectors.dtype)
        return onnx_node("Gemm", [vectors, kernel, added], [spec])[0]

    def at(self, values: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
        """A GatherElements, five times as fast as the Gather that TensorFlow's becomes."""
        spec = tf.TensorSpec(places.shape, values.dtype)
        return onnx_node("GatherElements", [values, places], [spec])[0]

    def order(self, keys: tf.Tensor) -> tf.Tensor:
        """A TopK of integers, which tf2onnx would make floats."""
        specs = [tf.TensorSpec([None], keys.dtype), tf.TensorSpec([None], tf.int64)]
        return onnx_node("TopK", [keys, tf.shape(keys, tf.int64)], specs, axis=0, largest=0)[1]


class _Sequence:
    """A pile that is an ONNX sequence; a stand-in calls it a tensor, which `passes.loops` mends."""

    def __init__(self, row: Any, dtype: Any):
        self.shape = tf.TensorShape([None, *row])
        self.spec = tf.TensorSpec(self.shape, dtype)

    @property
    def start(self) -> tf.Tensor:
        """No rows; a sequence without a tensor could not be joined."""
        return self.begun(tf.zeros([0, *self.shape[1:]], self.spec.dtype))

    def begun(self, rows: tf.Tensor) -> tf.Tensor:
        """These rows alone. TensorFlow tries to compute what has constant inputs in a branch, as
        `start` would, and warns that it cannot."""
        return onnx_node("SequenceConstruct", [rows], [self.spec])[0]

    def put(self, rows: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
        """`kept` with these rows behind it."""
        return onnx_node("SequenceInsert", [kept, rows], [self.spec])[0]

    def rows(self, kept: tf.Tensor) -> tf.Tensor:
        """All rows, those that were put first before the others."""
        return onnx_node("ConcatFromSequence", [kept], [self.spec], axis=0)[0]
