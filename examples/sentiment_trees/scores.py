"""How right the judgements are: of whole sentences and of all nodes, in five classes and in two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from batches import BINARY, FINE, LEFT_OUT, Task
from treebank import Sentence


@dataclass(frozen=True)
class Judged:
    """What a model says about sentences.

    Args:
        sentences: what was judged.
        probabilities: (all nodes, classes), sentence after sentence.
        row_splits: (sentences + 1,), where the nodes of each sentence begin.
    """

    sentences: Sequence[Sentence]
    probabilities: np.ndarray
    row_splits: np.ndarray

    def of(self, place: int) -> np.ndarray:
        """(nodes, classes) of one sentence."""
        return self.probabilities[self.row_splits[place] : self.row_splits[place + 1]]


@dataclass(frozen=True)
class Score:
    """Shares of right judgements.

    Args:
        root: of the sentences as wholes.
        nodes: of all nodes.
        sentences: int, how many sentences have a class.
    """

    root: float
    nodes: float
    sentences: int


def score(judged: Judged, task: Task) -> Score:
    """The score in the classes of the task.

    Five classes are judged in two by the larger sum: both negative against both positive classes,
    the neutral one left aside. Roots and nodes without a class in the task are not counted.
    """
    labels = np.array([label for sentence in judged.sentences for label in sentence.labels])
    truth = np.array(task.class_of)[labels]
    right = in_classes(judged.probabilities, task).argmax(axis=1) == truth
    counted = truth != LEFT_OUT
    # The root is the first node of its sentence.
    roots = judged.row_splits[:-1][counted[judged.row_splits[:-1]]]
    return Score(float(right[roots].mean()), float(right[counted].mean()), len(roots))


def in_classes(probabilities: np.ndarray, task: Task) -> np.ndarray:
    """(nodes, classes of the task), from a model of this task or of five classes."""
    if task is BINARY and probabilities.shape[1] == len(FINE.classes):
        negative, positive = probabilities[:, :2].sum(axis=1), probabilities[:, 3:].sum(axis=1)
        return np.stack([negative, positive], axis=1)
    return probabilities


def majority(train: Sequence[Sentence], test: Sequence[Sentence], task: Task) -> Score:
    """The score of always saying the most frequent class of the training roots."""
    roots = [task.class_of[sentence.labels[0]] for sentence in train if task.takes(sentence)]
    guess = np.bincount(roots).argmax()
    labels = [label for sentence in test for label in sentence.labels]
    same = np.eye(len(task.classes))[[guess] * len(labels)]
    row_splits = np.cumsum([0, *(len(sentence.labels) for sentence in test)])
    return score(Judged(test, same, row_splits), task)
