"""From sentences to the batches of ragged tensors that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from encoding import flat_inputs, flattened
from treebank import NAMES, Sentence

from keras_blocks.trees import Vocabulary

LEFT_OUT = -1


@dataclass(frozen=True)
class Task:
    """What is to be told apart.

    Args:
        classes: their names.
        class_of: the class of each of the treebank's five labels, `LEFT_OUT` for none.
    """

    name: str
    classes: tuple[str, ...]
    class_of: tuple[int, ...]

    def takes(self, sentence: Sentence) -> bool:
        """Whether the whole sentence has a class."""
        return self.class_of[sentence.labels[0]] != LEFT_OUT


FINE = Task("fine-grained", NAMES, (0, 1, 2, 3, 4))
BINARY = Task("binary", ("negative", "positive"), (0, 0, LEFT_OUT, 1, 1))


@dataclass(frozen=True)
class Rows:
    """Sentences as ragged tensors, made once; batches are rows of them.

    Args:
        words: int32 (sentences, words), the numbers of the words.
        parents: int32 (sentences, nodes), -1 at the root, which is the first node of its row.
        classes: int32 (sentences, nodes), `LEFT_OUT` where a node has none.
    """

    words: tf.RaggedTensor
    parents: tf.RaggedTensor
    classes: tf.RaggedTensor

    def __len__(self) -> int:
        return int(self.parents.nrows())

    @property
    def inputs(self) -> dict[str, tf.RaggedTensor]:
        """What the model takes, by the names of its inputs."""
        return {"words": self.words, "parents": self.parents}

    def learning(self, size: int, seed: int) -> tf.data.Dataset:
        """Batches in another order every epoch, with the classes of their nodes."""
        shuffled = tf.data.Dataset.range(len(self)).shuffle(len(self), seed)
        return self._batches(shuffled, size)

    def in_order(self, size: int) -> tf.data.Dataset:
        """Batches in the order of the sentences."""
        return self._batches(tf.data.Dataset.range(len(self)), size)

    def _batches(self, numbers: tf.data.Dataset, size: int) -> tf.data.Dataset:
        def gather(chosen: tf.Tensor) -> tuple[dict[str, tf.RaggedTensor], tf.RaggedTensor]:
            inputs = {name: tf.gather(rows, chosen) for name, rows in self.inputs.items()}
            return inputs, tf.gather(self.classes, chosen)

        return numbers.batch(size).map(gather).prefetch(2)


def rows_of(sentences: Sequence[Sentence], known: Vocabulary, task: Task) -> Rows:
    """The sentences as ragged tensors; words that are not known have the number 0."""
    flat = flat_inputs(sentences, known)
    words, parents = (
        tf.RaggedTensor.from_row_splits(flat[name], flat[f"{name}.row_splits"])
        for name in ("words", "parents")
    )
    labels = flattened(sentence.labels for sentence in sentences)
    return Rows(words, parents, parents.with_values(np.array(task.class_of, "int32")[labels]))
