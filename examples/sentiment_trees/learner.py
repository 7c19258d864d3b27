"""The model: a Tree-LSTM over pairs of phrases, and how it learns from every node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from batches import LEFT_OUT

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
    """Words and parses to the scores of each node's classes."""

    @property
    def word_vectors(self) -> keras.Variable:
        """The table of word vectors."""
        return self.get_layer(WORD_VECTORS).embeddings

    def judge(self) -> keras.Model:
        """The same weights as a model that gives probabilities: what is exported."""
        return keras.Model(self.input, kb.Softmax(name="sentiment")(self.output), name="sentiment")


class WordsApart(keras.Optimizer):
    """Word vectors, which a batch uses few of, learn by plain descent, all else by an optimizer.

    Args:
        others: the optimizer of all other weights.
        words: the table of word vectors.
        words_learning_rate: float, of the table.
        decay: float, the L2 weight of the others.
    """

    def __init__(
        self,
        others: keras.Optimizer,
        words: keras.Variable,
        words_learning_rate: float,
        decay: float,
    ):
        super().__init__(words_learning_rate, name="words_apart")
        self.others, self.decay = others, decay
        self.words_learning_rate = words_learning_rate
        # An optimizer takes a variable that it holds for one of its own state.
        self._is_words = lambda weight: weight is words

    def build(self, variables: list[keras.Variable]) -> None:
        """Makes the state of the other optimizer, and its step."""
        weights = [weight for weight in variables if not self._is_words(weight)]
        self.others.build(weights)

        # Compiled, the dozen operations on each weight pass over memory once.
        @tf.function(jit_compile=True)
        def learn(gradients: list[tf.Tensor]) -> None:
            pairs = zip(gradients, weights, strict=True)
            decayed = [gradient + self.decay * weight.value for gradient, weight in pairs]
            self.others.apply(decayed, weights)

        self._learn, self.built = learn, True

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """One step, from the gradients of all weights."""
        if not self.built:
            with tf.init_scope():
                self.build(trainable_variables)
        pairs = list(zip(grads, trainable_variables, strict=True))
        self._learn([gradient for gradient, weight in pairs if not self._is_words(weight)])
        ((gradient, words),) = [pair for pair in pairs if self._is_words(pair[1])]
        change = tf.IndexedSlices(self.words_learning_rate * gradient.values, gradient.indices)
        words.value.scatter_sub(change)


def node_loss(classes: tf.RaggedTensor, scores: tf.RaggedTensor) -> tf.Tensor:
    """(sentences,): the cross-entropy summed over the nodes of each that have a class."""
    each = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, ignore_class=LEFT_OUT, reduction="none"
    )
    return tf.reduce_sum(classes.with_values(each(classes.values, scores.values)), axis=1)


class RootAccuracy(keras.metrics.Mean):
    """The share of sentences that are judged right as wholes, among those that have a class."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch; the root is the first node of its sentence."""
        roots = y_true.row_splits[:-1]
        truth = tf.gather(y_true.values, roots)
        judged = tf.argmax(tf.gather(y_pred.values, roots), axis=-1, output_type=truth.dtype)
        super().update_state(judged == truth, sample_weight=truth != LEFT_OUT)


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
    optimizer = WordsApart(
        _optimizer(settings), learner.word_vectors, settings.words_learning_rate, settings.decay
    )
    learner.compile(
        optimizer,
        node_loss,
        metrics=[RootAccuracy("root_accuracy")],
        steps_per_execution=STEPS_AT_ONCE,
    )
    return learner


def _optimizer(settings: Settings) -> keras.Optimizer:
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(settings.learning_rate or 1e-3)
    # As the paper's: it counts from zero, and the first step of each weight is a whole one.
    return keras.optimizers.Adagrad(
        settings.learning_rate or 0.05, initial_accumulator_value=0.0, epsilon=1e-10
    )
