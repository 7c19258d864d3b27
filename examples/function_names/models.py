"""The three models: a bag of nodes, a tree and a sequence."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

import keras_blocks as kb
from keras_blocks.ragged import to_padded

EMBEDDED = 64
HIDDEN = 96
PATTERNS = 256


def bag_model(labels: int, verbs: int) -> keras.Model:
    """The baseline: one weight for each pair of label and verb, no order, no structure."""
    counts = keras.Input((labels,), name="counts")
    return keras.Model({"counts": counts}, answer(counts, verbs, dropout=0.0), name="bag")


def tree_model(labels: int, verbs: int) -> keras.Model:
    """A Tree-LSTM that tells each node what it stands in, and a count of what it finds there.

    A bag knows how often `self` occurs; here `self` below an assignment and `self` below a return
    can count for different verbs. A vector of the root alone would have to hold the whole function.
    """
    nodes = keras.Input((None,), dtype="int32", ragged=True, name="nodes")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    vectors = kb.Embedding(labels, EMBEDDED)(nodes)
    cell = kb.ChildSumTreeLSTMCell(HIDDEN)
    placed = kb.TreeRecursive(cell, direction="down", return_nodes=True)([vectors, parents])
    counts = LogCounts()(kb.Vanilla(PATTERNS, activation="relu")(placed))
    return keras.Model({"nodes": nodes, "parents": parents}, answer(counts, verbs), name="tree")


def sequence_model(labels: int, verbs: int) -> keras.Model:
    """A GRU that reads the tokens from both ends."""
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="tokens")
    vectors = kb.Embedding(labels, EMBEDDED)(tokens)
    ends = keras.layers.Bidirectional(kb.GRU(HIDDEN))(vectors)
    return keras.Model({"tokens": tokens}, answer(ends, verbs), name="sequence")


def answer(vector: keras.KerasTensor, verbs: int, dropout: float = 0.5) -> keras.KerasTensor:
    """The probability of each verb."""
    vector = keras.layers.Dropout(dropout)(vector)
    return kb.Softmax(name="verb")(kb.Vanilla(verbs, activation=None)(vector))


@keras.saving.register_keras_serializable(package="function_names")
class LogCounts(keras.layers.Layer):
    """How much there is of each feature in a tree: log(1 + sum over its nodes), as in the bag.

    Input shape:
        (batch, None, features), ragged, with nothing below 0.
    Output shape:
        (batch, features).
    """

    def call(self, nodes: tf.RaggedTensor) -> tf.Tensor:
        """Adds up the nodes of each tree."""
        padded, _ = to_padded(nodes)
        return tf.math.log(1 + tf.reduce_sum(padded, axis=1))

    def compute_output_spec(self, nodes: Any) -> keras.KerasTensor:
        """A dense vector for each tree."""
        return keras.KerasTensor((nodes.shape[0], nodes.shape[-1]), nodes.dtype)
