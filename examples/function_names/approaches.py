"""Three ways to guess a name: each is a view of the functions and a model that fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import keras
from data import Inputs, Split, bag_inputs, sequence_inputs, tree_inputs, vocabulary
from functions import Function
from models import bag_model, sequence_model, tree_model

from keras_blocks.trees import Vocabulary


@dataclass(frozen=True)
class Approach:
    """A view of the functions, and the model for it.

    Args:
        labels: the words of a function in this view.
        inputs: makes the model's inputs of functions and a vocabulary.
        model: makes the model for a number of labels and of verbs.
    """

    name: str
    what: str
    labels: Callable[[Function], tuple[str, ...]]
    inputs: Callable[[list[Function], Vocabulary], Inputs]
    model: Callable[[int, int], keras.Model]
    epochs: int
    learning_rate: float

    def vocabulary(self, split: Split) -> Vocabulary:
        """The labels that the training functions have in this view."""
        return vocabulary(split.train, self.labels)

    def sizes(self, functions: list[Function]) -> list[int]:
        """How large each function is in this view."""
        return [len(self.labels(function)) for function in functions]


def tree_labels(function: Function) -> tuple[str, ...]:
    return function.tree.labels


def sequence_labels(function: Function) -> tuple[str, ...]:
    return function.tokens


APPROACHES = (
    Approach("bag", "node counts, a linear model", tree_labels, bag_inputs, bag_model, 30, 5e-3),
    Approach(
        "tree", "nodes in context, a Tree-LSTM",
        tree_labels, tree_inputs, tree_model, 16, 3e-3,
    ),
    Approach(
        "sequence", "the tokens, a GRU both ways",
        sequence_labels, sequence_inputs, sequence_model, 16, 2e-3,
    ),
)  # fmt: skip
