"""The model: a Tree-LSTM over pairs of phrases, and how it learns from every node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import keras_blocks as kb

WORD_VECTORS = "word_vectors"
SPREAD = 0.1  # of the random numbers that word vectors start from
STEPS_AT_ONCE = 16  # what Keras does between two calls costs a tenth of a step of 25 sentences


@dataclass(frozen=True)
class Settings:
    """How the model is made and trained: by default as Tai et al. 2015 do.

    Only the word vectors learn at 0.2 where theirs do at 0.1: theirs start from GloVe.

    Args:
        embedded: int, the width of the word vectors.
        hidden: int, the width of the nodes' states.
        batch: int, sentences in a batch.
        dropout: float, of the nodes' vectors before they are judged.
        optimizer: str, "adagrad" or "adam", of all weights but the word vectors.
        learning_rate: float, of that optimizer; None takes its own.
        words_learning_rate: float, of the word vectors, by plain gradient descent.
        decay: float, the L2 weight of all weights but the word vectors.
        patience: int, epochs without a better one on the dev sentences before training ends.
    """

    embedded: int = 300
    hidden: int = 150
    batch: int = 25
    dropout: float = 0.5
    optimizer: str = "adagrad"
    learning_rate: float | None = None
    words_learning_rate: float = 0.2
    decay: float = 1e-4
    epochs: int = 20
    patience: int = 4
    seed: int = 0


class Learner(keras.Model):
    """Words and parses to the scores of each node's classes, and the step that trains it.

    The loss is the cross-entropy summed over the nodes of a sentence, its mean over sentences.
    """

    def compile(self, optimizer: keras.Optimizer, words_learning_rate: float, decay: float) -> None:
        """Sets what the weights and what the word vectors learn by."""
        super().compile(optimizer, steps_per_execution=STEPS_AT_ONCE)
        self.words_learning_rate, self.decay = words_learning_rate, decay
        self.root_accuracy = keras.metrics.Mean("root_accuracy")

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One batch; the word vectors, which a batch uses few of, learn by plain descent."""
        inputs, classes = data
        with tf.GradientTape() as tape:
            scores = self(inputs, training=True)
            loss = node_loss(classes, scores)
        table = self.word_vectors.value
        weights = [weight.value for weight in self.other_weights]
        *gradients, of_words = tape.gradient(loss, [*weights, table])
        self._learn(gradients)
        change = tf.IndexedSlices(self.words_learning_rate * of_words.values, of_words.indices)
        table.scatter_sub(change)
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}

    # Compiled, the dozen operations on each weight pass over memory once.
    @tf.function(jit_compile=True)
    def _learn(self, gradients: list[tf.Tensor]) -> None:
        pairs = zip(gradients, self.other_weights, strict=True)
        decayed = [gradient + self.decay * weight.value for gradient, weight in pairs]
        self.optimizer.apply(decayed, self.other_weights)

    @property
    def word_vectors(self) -> keras.Variable:
        """The table of word vectors."""
        return self.get_layer(WORD_VECTORS).embeddings

    @property
    def other_weights(self) -> list[keras.Variable]:
        """All weights that learn but the word vectors."""
        return [weight for weight in self.trainable_weights if weight is not self.word_vectors]

    def test_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One batch; counts the sentences that are judged right as wholes."""
        inputs, classes = data
        scores = self(inputs, training=False)
        roots = classes.row_splits[:-1]
        truth = tf.gather(classes.values, roots)
        judged = tf.argmax(tf.gather(scores.values, roots), axis=-1, output_type=tf.int32)
        self.root_accuracy.update_state(judged == truth, sample_weight=truth >= 0)
        return {"root_accuracy": self.root_accuracy.result()}

    def judge(self) -> keras.Model:
        """The same weights as a model that gives probabilities: what is exported."""
        return keras.Model(self.input, kb.Softmax(name="sentiment")(self.output), name="sentiment")


def node_loss(classes: tf.RaggedTensor, scores: tf.RaggedTensor) -> tf.Tensor:
    """The cross-entropy summed over the nodes that have a class, divided by the sentences."""
    known = classes.values >= 0
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
        tf.where(known, classes.values, 0), scores.values
    )
    losses = tf.where(known, losses, 0.0)
    return tf.reduce_sum(losses) / tf.cast(classes.nrows(), losses.dtype)


def make_learner(
    words: int, classes: int, settings: Settings, vectors: np.ndarray | None = None
) -> Learner:
    """A learner for a number of words and classes, compiled.

    Args:
        vectors: (words, settings.embedded), what the word vectors start from; random numbers
            without them.
    """
    start = keras.initializers.RandomUniform(-SPREAD, SPREAD)
    if vectors is not None:
        start = keras.initializers.Constant(vectors)
    tokens = keras.Input((None,), dtype="int32", ragged=True, name="words")
    parents = keras.Input((None,), dtype="int32", ragged=True, name="parents")
    leaves = kb.Embedding(words, settings.embedded, embeddings_initializer=start, name=WORD_VECTORS)
    cell = kb.NaryTreeLSTMCell(settings.hidden, arity=2)
    phrases = kb.TreeRecursive(cell, features_on="leaves", return_nodes=True)
    scores = kb.Vanilla(classes, activation=None)
    judging = kb.Stacked([keras.layers.Dropout(settings.dropout), scores], name="scores")
    learner = Learner(
        {"words": tokens, "parents": parents}, judging(phrases([leaves(tokens), parents]))
    )
    learner.compile(_optimizer(settings), settings.words_learning_rate, settings.decay)
    return learner


def _optimizer(settings: Settings) -> keras.Optimizer:
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(settings.learning_rate or 1e-3)
    # As the paper's: it counts from zero, and the first step of each weight is a whole one.
    return keras.optimizers.Adagrad(
        settings.learning_rate or 0.05, initial_accumulator_value=0.0, epsilon=1e-10
    )
