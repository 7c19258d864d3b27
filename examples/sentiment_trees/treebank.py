"""The files of the Stanford Sentiment Treebank: a bracketed sentence a line, a label at every node.

`(3 (2 The) (3 (3 good) (2 ones)))` has five nodes. A label says how the phrase below it was
judged: 0 very negative, 1 negative, 2 neutral, 3 positive, 4 very positive.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from keras_blocks import trees
from keras_blocks.errors import TreeError

PARTS = ("train", "dev", "test")
LABELS = ("0", "1", "2", "3", "4")
NAMES = ("very negative", "negative", "neutral", "positive", "very positive")


class TreebankError(Exception):
    """A file is missing, or a line is no tree; the message names file and line."""


@dataclass(frozen=True)
class Sentence:
    """A parse whose nodes are labelled.

    Args:
        words: the leaves from left to right.
        parents: the parent of each node, -1 at the root. Parents stand before their children and
            the root first, so the nodes without children are the words in their order.
        labels: 0 to 4 for each node.
    """

    words: tuple[str, ...]
    parents: tuple[int, ...]
    labels: tuple[int, ...]

    @cached_property
    def children(self) -> list[list[int]]:
        """The indices of each node's children, left to right."""
        return trees.Tree(self.labels, self.parents).children()


@dataclass(frozen=True)
class Treebank:
    """The sentences to learn from, to choose the best epoch by, and to report on."""

    train: list[Sentence]
    dev: list[Sentence]
    test: list[Sentence]

    @property
    def parts(self) -> dict[str, list[Sentence]]:
        """The three parts by their names."""
        return {part: getattr(self, part) for part in PARTS}


def read_treebank(folder: Path, limit: int | None = None, seed: int = 0) -> Treebank:
    """Reads `train.txt`, `dev.txt` and `test.txt`.

    Args:
        folder: where they lie.
        limit: int, take only so many sentences of each, drawn by chance: those of one sentiment
            stand together.
        seed: int, of that draw.

    Raises:
        TreebankError: a file is missing or unreadable, or a line is no labelled binary tree.
    """
    files = {part: folder / f"{part}.txt" for part in PARTS}
    return Treebank(**{part: read_sentences(path, limit, seed) for part, path in files.items()})


def read_sentences(path: Path, limit: int | None = None, seed: int = 0) -> list[Sentence]:
    """The sentences of one file, or so many in their order; all else as of `read_treebank`."""
    lines = [(number, line) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    if not lines:
        raise TreebankError(f"{path}, line 1: the file holds no sentence.")
    if limit is not None and limit < len(lines):
        lines = sorted(random.Random(seed).sample(lines, limit))
    return [_sentence(line, path, number) for number, line in lines]


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines: it ends lines at characters that stand inside of words.
        return path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise TreebankError(
            f"{path} is missing. --data is the folder with the treebank's "
            f"{', '.join(f'{part}.txt' for part in PARTS)}."
        ) from None
    except OSError as error:
        raise TreebankError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise TreebankError(f"{path}, line {line}: not UTF-8 text.") from None


def _sentence(line: str, path: Path, number: int) -> Sentence:
    try:
        return sentence(line.replace("\xa0", "_"))  # A few words have a space inside, like 3 1/2.
    except (TreeError, TreebankError) as error:
        reason = str(error).removeprefix("line 1, ")
        raise TreebankError(f"{path}, line {number}: {reason}") from None


def sentence(text: str) -> Sentence:
    """The sentence of one line.

    Raises:
        TreeError, TreebankError: it is no tree, or not one of labelled pairs and words.

    Example:
        >>> sentence("(3 (2 The) (3 (3 good) (2 ones)))")
        Sentence(words=('The', 'good', 'ones'), parents=(-1, 0, 0, 2, 2), labels=(3, 2, 3, 3, 2))
    """
    tree = trees.from_sexpr(text)
    children = tree.children()
    # `(2 The)` was read as a label with the word below it; here both are one node, the leaf.
    place: dict[int, int] = {}
    words, parents, labels = [], [], []
    for node, below in enumerate(children):
        if not below:
            continue
        parent = tree.parents[node]
        place[node] = len(parents)
        parents.append(place.get(parent, -1))
        labels.append(_label(tree, node))
        if len(below) == 1 and not children[below[0]]:
            words.append(tree.labels[below[0]])
        elif len(below) != 2 or any(not children[child] for child in below):
            raise TreebankError(
                f"the node {len(parents)} in the order of the line, labelled "
                f"{tree.labels[node]!r}, holds neither one word nor two bracketed phrases."
            )
    if not words:
        raise TreebankError("the sentence has no word.")
    return Sentence(tuple(words), tuple(parents), tuple(labels))


def _label(tree: trees.Tree, node: int) -> int:
    label = tree.labels[node]
    if label not in LABELS:
        raise TreebankError(f"the label {label!r} is not one of {', '.join(LABELS)}.")
    return int(label)


def vocabulary(sentences: Iterable[Sentence]) -> trees.Vocabulary:
    """The words of these sentences in small letters, the most frequent first.

    The number 0 stays for words never seen.
    """
    counts = Counter(word.lower() for sentence in sentences for word in sentence.words)
    return trees.Vocabulary(word for word, _ in counts.most_common())
