"""Sentences as flat arrays, the form in which the exported file takes them; needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from treebank import Sentence

from keras_blocks.trees import Vocabulary


def flat_inputs(sentences: Sequence[Sentence], known: Vocabulary) -> dict[str, np.ndarray]:
    """The words and parents of all sentences after one another, and where each sentence begins.

    Words count in small letters; those that are not known have the number 0.
    """
    rows = {
        "words": [[known[word.lower()] for word in sentence.words] for sentence in sentences],
        "parents": [sentence.parents for sentence in sentences],
    }
    flat: dict[str, np.ndarray] = {}
    for name, numbers in rows.items():
        flat[name] = flattened(numbers)
        flat[f"{name}.row_splits"] = np.cumsum([0, *map(len, numbers)], dtype="int64")
    return flat


def flattened(rows: Iterable[Iterable[int]]) -> np.ndarray:
    """All numbers of all rows."""
    return np.array([number for row in rows for number in row], "int32")
