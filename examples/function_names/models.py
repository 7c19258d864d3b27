"""The three models: a bag of nodes, a tree and a sequence."""

from __future__ import annotations

import keras

import keras_blocks as kb

EMBEDDED = 64
HIDDEN = 96


def bag_model(labels: int, verbs: int) -> keras.Model:
    """The baseline: one weight for each pair of label and verb, no order, no structure."""
    counts = keras.Input((labels,), name="counts")
    return keras.Model({"counts": counts}, answer(counts, verbs, dropout=0.0), name="bag")


def tree_model(labels: int, verbs: int) -> keras.Model:
    """A Tree-LSTM from the leaves of the syntax tree to its root."""
    nodes = keras.Input((None,), dtype="int32", ragged=True, name="nodes")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    vectors = kb.Embedding(labels, EMBEDDED)(nodes)
    root = kb.TreeRecursive(kb.ChildSumTreeLSTMCell(HIDDEN))([vectors, parents])
    return keras.Model({"nodes": nodes, "parents": parents}, answer(root, verbs), name="tree")


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
