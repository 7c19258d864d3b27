"""The same models as graphs written by hand, from the weights of the Keras model.

They say what someone who knows the model and the runtime would write, and no more: the masked one
takes for granted that rows are padded at their end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx
from export_speed_cases import HEADS, WIDTH
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 26, 13
Weights = dict[str, np.ndarray]


class Graph:
    """Nodes and weights, written down in order."""

    def __init__(self, **weights: np.ndarray):
        self.nodes: list[onnx.NodeProto] = []
        self.weights = dict(weights)

    def __call__(
        self, op_type: str, *inputs: str, to: Sequence[str] = (), **attributes: Any
    ) -> str:
        outputs = list(to) or [f"t{len(self.nodes)}"]
        self.nodes.append(helper.make_node(op_type, inputs, outputs, **attributes))
        return outputs[-1]

    def sizes(self, *values: int) -> str:
        name = "sizes_" + "_".join(map(str, values))
        self.weights[name] = np.array(values, "int64")
        return name

    def model(self, dtype: int, shape: Sequence[Any], output: str) -> bytes:
        """The file; its input is `x`."""
        graph = helper.make_graph(
            self.nodes,
            "by_hand",
            [helper.make_tensor_value_info("x", dtype, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        return model.SerializeToString()


def lstm(model: keras.Model) -> bytes:
    return _recurrent(model, "LSTM", _lstm_weights(model.layers[-1].cell))


def gru(model: keras.Model) -> bytes:
    return _recurrent(model, "GRU", _gru_weights(model.layers[-1].cell), linear_before_reset=1)


def _recurrent(model: keras.Model, op_type: str, weights: Weights, **options: Any) -> bytes:
    graph = Graph(**weights)
    features, units = model.input_shape[-1], model.output_shape[-1]
    time_major = graph("Transpose", "x", perm=[1, 0, 2])
    y = graph(op_type, time_major, "W", "R", "B", hidden_size=units, **options)
    y = graph("Transpose", graph("Squeeze", y, graph.sizes(1)), perm=[1, 0, 2])
    return graph.model(TensorProto.FLOAT, ["batch", "time", features], y)


def bidirectional_lstm(model: keras.Model) -> bytes:
    layer = model.layers[-1]
    both = [_lstm_weights(part.cell) for part in (layer.forward_layer, layer.backward_layer)]
    graph = Graph(**{name: np.concatenate([part[name] for part in both]) for name in both[0]})
    units = layer.forward_layer.units
    time_major = graph("Transpose", "x", perm=[1, 0, 2])
    y = graph("LSTM", time_major, "W", "R", "B", hidden_size=units, direction="bidirectional")
    y = graph("Reshape", graph("Transpose", y, perm=[2, 0, 1, 3]), graph.sizes(0, 0, 2 * units))
    return graph.model(TensorProto.FLOAT, ["batch", "time", model.input_shape[-1]], y)


def masked_lstm(model: keras.Model) -> bytes:
    _, embedding, layer = model.layers[:2] + model.layers[-1:]
    graph = Graph(table=embedding.embeddings.numpy(), zero=np.int32(0), **_lstm_weights(layer.cell))
    kept = graph("CastLike", graph("Not", graph("Equal", "x", "zero")), "zero")
    lengths = graph("ReduceSum", kept, graph.sizes(1), keepdims=0)
    embedded = graph("Gather", "table", graph("Transpose", "x", perm=[1, 0]))
    graph("LSTM", embedded, "W", "R", "B", lengths, to=["", "last"], hidden_size=layer.units)
    y = graph("Squeeze", "last", graph.sizes(0))
    return graph.model(TensorProto.INT32, ["batch", "time"], y)


def transformer_block(model: keras.Model) -> bytes:
    attention, size = model.get_layer("attention"), WIDTH // HEADS
    parts = [attention.query_dense, attention.key_dense, attention.value_dense]
    scales = [size**-0.5, 1.0, 1.0]
    kernels = [
        d.kernel.numpy().reshape(WIDTH, WIDTH) * s for d, s in zip(parts, scales, strict=True)
    ]
    biases = [d.bias.numpy().reshape(WIDTH) * s for d, s in zip(parts, scales, strict=True)]
    out = attention.output_dense
    graph = Graph(
        W=np.concatenate(kernels, 1).astype("float32"),
        b=np.concatenate(biases).astype("float32"),
        Wo=out.kernel.numpy().reshape(WIDTH, WIDTH),
        bo=out.bias.numpy(),
        **_dense(model, "wide"),
        **_dense(model, "narrow"),
    )
    h = graph("Add", graph("MatMul", _layer_norm(graph, model, "first_norm", "x"), "W"), "b")
    h = graph("Reshape", h, graph.sizes(0, 0, 3, HEADS, size))
    h = graph("Transpose", h, perm=[2, 0, 3, 1, 4])
    graph("Split", h, to=["q4", "k4", "v4"], axis=0, num_outputs=3)
    q, k, v = (graph("Squeeze", name, graph.sizes(0)) for name in ("q4", "k4", "v4"))
    scores = graph("Softmax", graph("MatMul", q, graph("Transpose", k, perm=[0, 1, 3, 2])))
    h = graph("Transpose", graph("MatMul", scores, v), perm=[0, 2, 1, 3])
    h = graph("MatMul", graph("Reshape", h, graph.sizes(0, 0, WIDTH)), "Wo")
    h = graph("Add", "x", graph("Add", h, "bo"))
    y = _layer_norm(graph, model, "second_norm", h)
    y = graph("Gelu", graph("Add", graph("MatMul", y, "wide_kernel"), "wide_bias"))
    y = graph("Add", graph("MatMul", y, "narrow_kernel"), "narrow_bias")
    return graph.model(TensorProto.FLOAT, ["batch", "time", WIDTH], graph("Add", h, y))


def small_cnn(model: keras.Model) -> bytes:
    graph = Graph(**_dense(model, "classes"))
    graph.weights |= _folded(model, "first", "first_norm") | _folded(model, "second", "second_norm")
    graph.weights |= _folded(model, "third")
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    h = graph("Transpose", "x", perm=[0, 3, 1, 2])
    skipped = graph("Relu", graph("Conv", h, "first_kernel", "first_bias", **same))
    h = graph("Relu", graph("Conv", skipped, "second_kernel", "second_bias", **same))
    h = graph("MaxPool", graph("Add", h, skipped), kernel_shape=[2, 2], strides=[2, 2])
    h = graph("Conv", h, "third_kernel", "third_bias", kernel_shape=[3, 3], strides=[2, 2])
    h = graph("Flatten", graph("GlobalAveragePool", graph("Relu", h)))
    y = graph("Softmax", graph("Gemm", h, "classes_kernel", "classes_bias"))
    return graph.model(TensorProto.FLOAT, ["batch", 32, 32, 3], y)


def _lstm_weights(cell: Any) -> Weights:
    """W, R and B of one direction: Keras's i f c o become ONNX's i o f c."""
    return _gates(cell, (0, 3, 1, 2), np.stack([cell.bias.numpy(), 0 * cell.bias.numpy()]))


def _gru_weights(cell: Any) -> Weights:
    return _gates(cell, (0, 1, 2), cell.bias.numpy())


def _gates(cell: Any, order: Sequence[int], bias: np.ndarray) -> Weights:
    def ordered(weight: np.ndarray) -> np.ndarray:
        parts = np.split(weight, len(order), axis=-1)
        return np.concatenate([parts[gate] for gate in order], axis=-1)

    return {
        "W": ordered(cell.kernel.numpy()).T[np.newaxis].copy(),
        "R": ordered(cell.recurrent_kernel.numpy()).T[np.newaxis].copy(),
        "B": ordered(bias).reshape(1, -1),
    }


def _dense(model: keras.Model, name: str) -> Weights:
    layer = model.get_layer(name)
    return {f"{name}_kernel": layer.kernel.numpy(), f"{name}_bias": layer.bias.numpy()}


def _layer_norm(graph: Graph, model: keras.Model, name: str, x: str) -> str:
    layer = model.get_layer(name)
    graph.weights |= {f"{name}_gamma": layer.gamma.numpy(), f"{name}_beta": layer.beta.numpy()}
    weights = (f"{name}_gamma", f"{name}_beta")
    return graph("LayerNormalization", x, *weights, axis=-1, epsilon=layer.epsilon)


def _folded(model: keras.Model, name: str, norm: str = "") -> Weights:
    """A convolution's weights, channels first, with the normalization behind it in them."""
    layer = model.get_layer(name)
    kernel = layer.kernel.numpy().transpose(3, 2, 0, 1).copy()
    bias = layer.bias.numpy() if layer.use_bias else np.zeros(len(kernel), "float32")
    if norm:
        after = model.get_layer(norm)
        scale = after.gamma.numpy() / np.sqrt(after.moving_variance.numpy() + after.epsilon)
        kernel = kernel * scale[:, np.newaxis, np.newaxis, np.newaxis]
        bias = (bias - after.moving_mean.numpy()) * scale + after.beta.numpy()
    return {f"{name}_kernel": kernel, f"{name}_bias": bias}


BY_HAND: Mapping[str, Callable[[keras.Model], bytes]] = {
    function.__name__: function
    for function in (lstm, gru, masked_lstm, bidirectional_lstm, transformer_block, small_cnn)
}
