"""Pretrained word vectors from a text file such as GloVe's: a word and its numbers on each line."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import wrap_file

from keras_blocks.trees import Vocabulary

SPREAD = 0.05  # of the random numbers that words start from which the file lacks


class WordVectorsError(Exception):
    """The file is missing or a line is no word vector; the message names file and line."""


def read_vectors(
    path: Path, wanted: Collection[str], width: int, console: Console | None = None
) -> dict[str, np.ndarray]:
    """The vectors of these words; the file is read once, line by line, and the rest forgotten.

    Args:
        path: the file: words, each followed by `width` numbers.
        wanted: the words.
        width: int, the numbers of a vector.

    Raises:
        WordVectorsError: the file cannot be read, a line that is wanted has other than `width`
            numbers, or none of the words is in it.
    """
    found: dict[str, np.ndarray] = {}
    for number, line in _lines(path, console):
        word, _, numbers = line.rstrip().partition(b" ")
        if number == 1 and len(numbers.split()) != width:
            raise WordVectorsError(
                f"{path}, line 1: {len(numbers.split())} numbers behind the word, expected "
                f"{width}. --embedded must be the width of the file."
            )
        text = word.decode("utf-8", "replace")
        if text in wanted:
            # The large GloVe file has entries of several words, which begin with one of ours.
            name, *numbers = line.rstrip().rsplit(b" ", width)
            if name == word:
                found[text] = _vector(numbers, width, path, number)
    if not found:
        raise WordVectorsError(f"{path} has a vector for none of the {len(wanted)} words.")
    return found


def start_vectors(
    known: Vocabulary, found: dict[str, np.ndarray], width: int, seed: int
) -> np.ndarray:
    """(words, width): what the word vectors of a vocabulary start from."""
    table = np.random.default_rng(seed).uniform(-SPREAD, SPREAD, (len(known), width))
    for word, vector in found.items():
        table[known[word]] = vector
    return table.astype("float32")


def _lines(path: Path, console: Console | None) -> Iterator[tuple[int, bytes]]:
    try:
        with (
            path.open("rb") as raw,
            wrap_file(
                raw, os.path.getsize(path), description="word vectors", console=console,
                transient=True,
            ) as lines,
        ):  # fmt: skip
            yield from enumerate(lines, start=1)
    except OSError as error:
        raise WordVectorsError(f"{path} cannot be read: {error.strerror}.") from None


def _vector(numbers: list[bytes], width: int, path: Path, line: int) -> np.ndarray:
    try:
        vector = np.array([float(number) for number in numbers], "float32")
    except ValueError as error:
        raise WordVectorsError(f"{path}, line {line}: {error}.") from None
    if len(vector) != width:
        raise WordVectorsError(f"{path}, line {line}: {len(vector)} numbers, expected {width}.")
    return vector
