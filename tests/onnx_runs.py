"""Runs exported files beside their Keras models, without the package's own proof."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf

from keras_blocks.export import export_onnx
from keras_blocks.export.passes.naming import nested_graphs

# Both sides round in float32, in another order; outputs here are of the order of one.
TOLERANCE = 2e-5


class Exported:
    """A model beside the file that it was exported to, which nothing has proven yet."""

    def __init__(self, model: keras.Model, path: Path, **options: Any):
        self.model = model
        self.contract = export_onnx(model, path, verify=False, verbose=False, **options).contract
        self.proto = onnx.load(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(str(path), options)

    @property
    def ops(self) -> Counter[str]:
        """The ops, those in branches and loops too."""
        graphs = nested_graphs(self.proto.graph)
        return Counter(node.op_type for graph in graphs for node in graph.node)

    @property
    def input_names(self) -> list[str]:
        return [node.name for node in self.session.get_inputs()]

    @property
    def output_names(self) -> list[str]:
        return [node.name for node in self.session.get_outputs()]

    def run(self, argument: Any) -> list[np.ndarray]:
        """The flat outputs of the file for the argument of the model."""
        names = [tensor.name for tensor in self.proto.graph.input]
        values = dict(zip(names, flat(argument), strict=True))
        return self.session.run(None, {name: values[name] for name in self.input_names})

    def check(self, argument: Any, tolerance: float = TOLERANCE) -> None:
        """Asserts that the file gives what the model gives."""
        expected = flat(self.model(argument, training=False))
        got = self.run(argument)
        assert len(got) == len(expected)
        for want, have in zip(expected, got, strict=True):
            assert have.shape == want.shape
            assert have.dtype == want.dtype
            np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def flat(tensors: Any) -> list[np.ndarray]:
    """Tensors and ragged tensors as arrays in the order of the ONNX graph."""
    parts: list[np.ndarray] = []
    for tensor in keras.tree.flatten(tensors):
        if isinstance(tensor, tf.RaggedTensor):
            parts += [tensor.values.numpy(), tensor.row_splits.numpy()]
        else:
            parts.append(np.asarray(tensor))
    return parts


class Function(keras.layers.Layer):
    """A layer that computes a function of its inputs."""

    def __init__(self, function: Any):
        super().__init__(name="y")
        self.function = function

    def call(self, *inputs: Any) -> Any:
        return self.function(*inputs)


def function_model(
    function: Any, *shapes: tuple[int | None, ...], dtypes: tuple[str, ...] = ()
) -> keras.Model:
    """A model of a function of inputs of these shapes, without the batch."""
    types = dtypes or ("float32",) * len(shapes)
    pairs = enumerate(zip(shapes, types, strict=True))
    inputs = [keras.Input(shape, dtype=dtype, name=f"x{i}") for i, (shape, dtype) in pairs]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], Function(function)(*inputs))


def random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Biases are zero in a new model, and would hide a mistake; so would the NaN of a variance
    below zero."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.dtype == "float32":
            values = generator.normal(scale=0.5, size=weight.shape).astype("float32")
            weight.assign(np.abs(values) if weight.path.endswith("variance") else values)
    return model


def sequences(batch: int, time: int, features: int = 6, seed: int = 0) -> tf.Tensor:
    generator = np.random.default_rng(seed)
    return tf.constant(generator.normal(size=(batch, time, features)).astype("float32"))


def ragged(lengths: list[int], features: int = 6, seed: int = 0) -> tf.RaggedTensor:
    values = sequences(1, sum(lengths), features, seed)[0]
    return tf.RaggedTensor.from_row_lengths(values, lengths)


def images(*shape: int, seed: int = 0) -> tf.Tensor:
    generator = np.random.default_rng(seed)
    return tf.constant(generator.normal(size=shape).astype("float32"))
