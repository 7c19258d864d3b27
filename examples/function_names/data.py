"""From functions to the batches of ragged tensors that the models take."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from functions import Function

from keras_blocks import trees

MOST_TOKENS = 200  # nine of ten functions; the rest would take half of the time
BATCH = 64
# The share of words that training hides: the held-out modules have words of their own too.
HIDDEN_WORDS = 0.15
# A word that fewer modules use says which module this is, not what the function does.
LEAST_MODULES = 3

Inputs = dict[str, tf.Tensor | tf.RaggedTensor]


@dataclass(frozen=True)
class Split:
    """The functions to learn from, to choose the best epoch by, and to report on.

    No module is in two of them.
    """

    train: list[Function]
    valid: list[Function]
    test: list[Function]
    verbs: list[str]

    def labels(self, functions: list[Function]) -> np.ndarray:
        """The number of each function's verb."""
        return np.array([self.verbs.index(function.verb) for function in functions], "int64")


def split_by_module(functions: list[Function], seed: int) -> Split:
    """Whole modules for test (a fifth of the functions) and validation (a tenth)."""
    sizes = Counter(function.module for function in functions)
    modules = sorted(sizes)
    random.Random(seed).shuffle(modules)
    parts: dict[str, list[Function]] = {"train": [], "valid": [], "test": []}
    by_module = defaultdict(list)
    for function in functions:
        by_module[function.module].append(function)
    for module in modules:
        small = [("test", 0.2), ("valid", 0.1)]
        open_parts = [name for name, share in small if len(parts[name]) < share * len(functions)]
        parts[open_parts[0] if open_parts else "train"] += by_module[module]
    counts = Counter(function.verb for function in functions)
    verbs = sorted(counts, key=lambda verb: (-counts[verb], verb))
    return Split(**parts, verbs=verbs)


def vocabulary(
    functions: Iterable[Function], labels: Callable[[Function], Iterable[str]]
) -> trees.Vocabulary:
    """The labels that at least `LEAST_MODULES` modules use."""
    users = defaultdict(set)
    for function in functions:
        for label in labels(function):
            users[label].add(function.module)
    known = (label for label, modules in users.items() if len(modules) >= LEAST_MODULES)
    return trees.Vocabulary(sorted(known))


def tree_inputs(functions: list[Function], known: trees.Vocabulary) -> Inputs:
    """The nodes of each function's syntax tree, and the parent of each node."""
    nodes, parents = trees.batch([function.tree for function in functions], known)
    return {"nodes": nodes, "parents": parents}


def sequence_inputs(functions: list[Function], known: trees.Vocabulary) -> Inputs:
    """The tokens of each function, in order."""
    rows = [[known[token] for token in function.tokens] for function in functions]
    values = np.array([token for row in rows for token in row], "int32")
    row_splits = np.cumsum([0, *map(len, rows)])
    return {"tokens": tf.RaggedTensor.from_row_splits(values, row_splits)}


def bag_inputs(functions: list[Function], known: trees.Vocabulary) -> Inputs:
    """How often each label occurs in a function's tree, as log(1 + count)."""
    counts = np.zeros((len(functions), len(known)), "float32")
    for row, function in enumerate(functions):
        for label in function.tree.labels:
            counts[row, known[label]] += 1
    return {"counts": tf.constant(np.log1p(counts))}


def batches(
    inputs: Inputs, labels: np.ndarray, sizes: list[int], training: bool
) -> tf.data.Dataset:
    """Batches of functions of about one size: padding and deep levels then cost little.

    In training the order of the batches changes every epoch, and some words are hidden.
    """
    order = np.argsort(sizes, kind="stable")
    splits = np.append(np.arange(0, len(order), BATCH), len(order))
    groups = tf.data.Dataset.from_tensor_slices(tf.RaggedTensor.from_row_splits(order, splits))

    def gather(rows: tf.Tensor) -> tuple[Inputs, tf.Tensor]:
        chosen = {name: tf.gather(tensor, rows) for name, tensor in inputs.items()}
        return chosen, tf.gather(labels, rows)

    def hide(chosen: Inputs, verbs: tf.Tensor) -> tuple[Inputs, tf.Tensor]:
        return {name: _hide_words(name, x) for name, x in chosen.items()}, verbs

    if not training:
        return groups.map(gather)
    return groups.shuffle(len(order)).map(gather).map(hide)


def _hide_words(name: str, x: tf.Tensor) -> tf.Tensor:
    if name not in ("nodes", "tokens"):
        return x
    kept = tf.random.uniform(tf.shape(x.values)) >= HIDDEN_WORDS
    return x.with_values(tf.where(kept, x.values, 0))
