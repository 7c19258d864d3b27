"""Models whose files hold ops of several opsets, and models of one node."""

import keras
import onnxruntime
import tensorflow as tf
from onnx import TensorProto, helper
from onnx_runs import images, sequences

import keras_blocks as kb

layers = keras.layers


def encoder():
    x = keras.Input((None, 6), name="x")
    h = layers.LayerNormalization()(layers.Bidirectional(layers.GRU(3, return_sequences=True))(x))
    h = h + layers.MultiHeadAttention(2, 3)(h, h)
    h = layers.Dense(8, activation="gelu")(layers.RMSNormalization()(h))
    return keras.Model(x, layers.Dense(3, activation="softmax")(h)), sequences(2, 5)


def image_model():
    x = keras.Input((None, None, 4), name="x")
    h = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x))
    h = layers.AveragePooling2D(2)(layers.Activation("swish")(h))
    h = layers.GroupNormalization(2)(layers.MaxPooling2D(2, padding="same")(h))
    return keras.Model(x, layers.GlobalAveragePooling2D()(h)), images(2, 9, 8, 4)


def spectrum():
    x = keras.Input((64,), name="x")
    magnitudes = layers.Lambda(lambda z: tf.abs(tf.signal.rfft(z)))
    return keras.Model(x, magnitudes(x)), sequences(1, 2, 64)[0]


def masked():
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = layers.Embedding(9, 6, mask_zero=True)(ids)
    return keras.Model(ids, kb.LSTM(4)(layers.SimpleRNN(5, return_sequences=True)(h)))


def graph_of(op_type, shapes, opset, rank=1, **attributes):
    """A model of one node over float tensors of these names and shapes."""
    inputs = list(shapes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    node = helper.make_node(op_type, inputs, ["y"], "n", **attributes)
    graph = helper.make_graph([node], "g", values, [result])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model, feeds):
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
