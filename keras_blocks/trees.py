"""Trees from nested lists, parent arrays, s-expressions, `nltk.Tree` and Python's `ast`.

A `Tree` is a label and a parent for each node; `batch` makes the two ragged tensors of it that
`TreeRecursive` takes, `bucket_by_nodes` and `schedule` help a `tf.data` pipeline, and only these
three load TensorFlow. Nothing here recurses, so chains may be as deep as memory allows.

Example:
    >>> from keras_blocks import trees
    >>> tree = trees.from_sexpr("(S (NP I) (VP (V saw) (NP stars)))")
    >>> tree.labels
    ('S', 'NP', 'I', 'VP', 'V', 'saw', 'NP', 'stars')
    >>> tree.parents
    (-1, 0, 1, 0, 3, 4, 3, 6)
    >>> words = trees.Vocabulary.of([tree])
    >>> tokens, parents = trees.batch([tree], words)
    >>> tokens.shape, parents.shape
    (TensorShape([1, None]), TensorShape([1, None]))
"""

from __future__ import annotations

import ast
import operator
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_blocks.errors import TreeError
from keras_blocks.tree_validity import UNEQUAL_ROWS, validate

__all__ = [
    "Tree",
    "Vocabulary",
    "batch",
    "bucket_by_nodes",
    "from_ast",
    "from_nested",
    "from_nltk",
    "from_parents",
    "from_sexpr",
    "from_sexprs",
    "schedule",
    "validate",
]

_BRACKETS = {
    "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}",
}  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """A tree: node i has `labels[i]` and hangs below node `parents[i]`.

    Args:
        labels: tuple, one label for each node: strings, integers, or vectors of numbers.
        parents: tuple of int, the index of each node's parent, -1 at the root. Nodes may stand in
            any order; the functions of this module put parents before their children.

    Raises:
        TreeError: the parents are those of no tree.
    """

    labels: tuple[Any, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.parents):
            raise TreeError(UNEQUAL_ROWS.format(0, len(self.labels), len(self.parents)))
        validate(self.parents)

    def __len__(self) -> int:
        return len(self.parents)

    def children(self) -> list[list[int]]:
        """The indices of each node's children, in order."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                children[parent].append(node)
        return children


def from_parents(labels: Iterable[Any], parents: Iterable[int]) -> Tree:
    """The tree of these labels and parents, in this order; `parents` may be an array.

    Raises:
        TreeError: the parents are those of no tree, or there are more or fewer than labels.

    Example:
        >>> len(from_parents(["a", "b", "c"], [2, 2, -1]))
        3
    """
    return Tree(tuple(labels), tuple(operator.index(parent) for parent in parents))


def from_nested(nested: Any, inner_label: Any = None) -> Tree:
    """The tree of nested lists or tuples; anything else is the label of a leaf.

    Args:
        nested: a label, or a list or tuple: its label and then its children.
        inner_label: the label of every inner node. When it is given, lists hold nothing but
            children.

    Raises:
        TreeError: a list is empty where its label should stand first.

    Example:
        >>> from_nested(["S", ["NP", "I"], "sleep"]).labels
        ('S', 'NP', 'I', 'sleep')
        >>> from_nested([["very", "good"], "film"], inner_label="*").labels
        ('*', '*', 'very', 'good', 'film')
    """

    def parts(item: Any, node: int) -> tuple[Any, Sequence[Any]]:
        if not isinstance(item, list | tuple):
            return item, ()
        if inner_label is not None:
            return inner_label, item
        if not item or isinstance(item[0], list | tuple):
            raise TreeError(
                f"node {node} of tree 0 is the list {_short(item)}, which has no label. A list "
                f"holds the label of its node and then the children; for lists of nothing but "
                f"children give `inner_label`."
            )
        return item[0], item[1:]

    return _grown(nested, parts)


def from_nltk(tree: Any) -> Tree:
    """The tree of an `nltk.Tree`; its leaves become nodes of their own.

    Example:
        >>> import nltk
        >>> from_nltk(nltk.Tree("S", [nltk.Tree("NP", ["I"]), "sleep"])).labels
        ('S', 'NP', 'I', 'sleep')
    """

    def parts(item: Any, node: int) -> tuple[Any, Sequence[Any]]:
        # A leaf is whatever is no nltk.Tree; asking for `label` spares the import of nltk.
        return (item.label(), list(item)) if callable(getattr(item, "label", None)) else (item, ())

    return _grown(tree, parts)


def from_ast(source: ast.AST | str, fields: bool = False, identifiers: bool = False) -> Tree:
    """The tree of Python code; labels are the names of the `ast` classes.

    The nodes that only say whether a name is read, written or deleted (`Load`, `Store`, `Del`) are
    left out.

    Args:
        source: an `ast` node, or source code, whose `ast.Module` is taken.
        fields: bool, put the field of the parent before the label: `body:Return`.
        identifiers: bool, add names (of variables, attributes, functions, arguments, modules) as
            leaves of their node.

    Example:
        >>> from_ast("x = f(1)").labels
        ('Module', 'Assign', 'Name', 'Call', 'Name', 'Constant')
        >>> from_ast("x.y", identifiers=True).labels
        ('Module', 'Expr', 'Attribute', 'Name', 'x', 'y')
    """

    def parts(item: Any, node: int) -> tuple[Any, Sequence[Any]]:
        field, value = item
        prefix = f"{field}:" if fields and field else ""
        if isinstance(value, str):
            return prefix + value, ()
        return prefix + type(value).__name__, list(_members(value, identifiers))

    root = ast.parse(source) if isinstance(source, str) else source
    return _grown(("", root), parts)


def _members(node: ast.AST, identifiers: bool) -> Iterable[tuple[str, Any]]:
    """The children of an `ast` node, each with its field."""
    for field, value in ast.iter_fields(node):
        for item in value if isinstance(value, list) else [value]:
            is_node = isinstance(item, ast.AST) and not isinstance(item, ast.expr_context)
            # A constant's value and kind are strings too, but no names.
            is_name = isinstance(item, str) and not isinstance(node, ast.Constant)
            if is_node or (identifiers and is_name and field != "type_comment"):
                yield field, item


def from_sexpr(text: str) -> Tree:
    """The one tree of an s-expression; see `from_sexprs`."""
    found = from_sexprs(text)
    if len(found) != 1:
        raise TreeError(f"the text holds {len(found)} trees, expected one. Use from_sexprs.")
    return found[0]


def from_sexprs(text: str) -> list[Tree]:
    """All trees of a text of s-expressions, as in treebanks: `(S (NP I) (VP (V saw) (NP stars)))`.

    The first word in brackets is the label of the node, each further word a leaf. Brackets without
    a label, as around the sentences of the Penn Treebank, have the label "". In leaves the escapes
    -LRB-, -RRB-, -LSB-, -RSB-, -LCB- and -RCB- become the brackets that they stand for.

    Raises:
        TreeError: a bracket is missing, or a word stands outside brackets; the message names line
            and column.

    Example:
        >>> [tree.labels for tree in from_sexprs("(NP (D the) cat) (X -LRB-)")]
        [('NP', 'D', 'the', 'cat'), ('X', '(')]
    """
    found: list[Tree] = []
    labels: list[str] = []
    parents: list[int] = []
    opened: list[tuple[int, int]] = []  # the node and the position of each open bracket
    previous = ""
    for match in re.finditer(r"[()]|[^\s()]+", text):
        word, position = match.group(), match.start()
        if word != "(" and not opened:
            raise TreeError(f"{_place(text, position)}: {word!r} stands outside any tree.")
        if word == ")":
            if previous == "(":
                raise TreeError(f"{_place(text, position)}: the brackets are empty.")
            opened.pop()
        elif word != "(" and previous == "(":
            labels[-1] = word
        else:
            parents.append(opened[-1][0] if opened else -1)
            labels.append(_BRACKETS.get(word, word) if word != "(" else "")
            if word == "(":
                opened.append((len(labels) - 1, position))
        if not opened:
            found.append(Tree(tuple(labels), tuple(parents)))
            labels, parents = [], []
        previous = word
    if opened:
        raise TreeError(f"{_place(text, opened[-1][1])}: the bracket is never closed.")
    return found


def _place(text: str, position: int) -> str:
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    return f"line {line}, column {column}"


def _short(value: Any, width: int = 60) -> str:
    text = reprlib.repr(value)  # repr itself recurses, and a chain may be deeper than it can go
    return text if len(text) <= width else text[: width - 3] + "..."


def _grown(root: Any, parts: Callable[[Any, int], tuple[Any, Sequence[Any]]]) -> Tree:
    """The tree below `root`, parents first; `parts` gives an item's label and children."""
    labels: list[Any] = []
    parents: list[int] = []
    waiting = [(root, -1)]
    while waiting:
        item, parent = waiting.pop()
        label, children = parts(item, len(labels))
        waiting.extend((child, len(labels)) for child in reversed(children))
        labels.append(label)
        parents.append(parent)
    return Tree(tuple(labels), tuple(parents))


class Vocabulary:
    """Numbers the labels of trees from 1; 0 is any label that is not in it.

    Args:
        labels: the labels in the order of their numbers, each once. The attribute `labels` gives
            them back, to be stored.

    Example:
        >>> words = Vocabulary(["S", "NP"])
        >>> words["NP"], words["never seen"], len(words)
        (2, 0, 3)
    """

    def __init__(self, labels: Iterable[Hashable]):
        self.labels = tuple(labels)
        self._ids = {label: index for index, label in enumerate(self.labels, start=1)}
        if len(self._ids) < len(self.labels):
            twice = next(label for label, count in Counter(self.labels).items() if count > 1)
            raise ValueError(f"Vocabulary: the label {twice!r} is given more than once.")

    @classmethod
    def of(cls, trees: Iterable[Tree], size: int | None = None, min_count: int = 1) -> Vocabulary:
        """The labels of these trees, the most frequent first.

        Args:
            trees: iterable of `Tree`.
            size: int, keep so many ids at most, the 0 of unknown labels included.
            min_count: int, leave out labels that are rarer.
        """
        counts = Counter(label for tree in trees for label in tree.labels)
        kept = [label for label, count in counts.most_common() if count >= min_count]
        return cls(kept if size is None else kept[: max(size - 1, 0)])

    def __getitem__(self, label: Hashable) -> int:
        return self._ids.get(label, 0)

    def __contains__(self, label: Hashable) -> bool:
        return label in self._ids

    def __iter__(self) -> Iterator[Hashable]:
        # Without it Python would count up through __getitem__, which has an answer to everything.
        return iter(self.labels)

    def __len__(self) -> int:
        """How many ids there are: the `input_dim` of an Embedding."""
        return len(self.labels) + 1


def batch(trees: Iterable[Tree], vocabulary: Vocabulary | None = None) -> tuple[Any, Any]:
    """The ragged tensors of a batch of trees: (tokens, parents), ready for a model.

    Args:
        trees: iterable of `Tree`; trees without a node are allowed.
        vocabulary: numbers the labels. Without it the labels themselves are taken: integers,
            strings, or vectors of one length, which give ragged features (batch, None, length).

    Returns:
        The tokens, int32 with a vocabulary, and the parents, int32, with the same rows.

    Raises:
        ValueError: the labels are of different kinds or lengths.
    """
    import tensorflow as tf

    trees = list(trees)
    row_splits = np.cumsum([0, *(len(tree) for tree in trees)])
    labels = [label for tree in trees for label in tree.labels]
    if vocabulary is not None:
        tokens = np.array([vocabulary[label] for label in labels], dtype="int32")
    else:
        tokens = _array(labels)
    parents = np.array([parent for tree in trees for parent in tree.parents], dtype="int32")
    tokens, parents = tf.constant(tokens), tf.constant(parents)
    # One tensor of row splits for both says at once that the rows are the same.
    splits = tf.constant(row_splits, tf.int64)
    return (
        tf.RaggedTensor.from_row_splits(tokens, splits),
        tf.RaggedTensor.from_row_splits(parents, splits),
    )


def schedule(parents: Any, forests: str = "refuse") -> Any:
    """The parents of a batch with the order in which `TreeRecursive` computes its nodes.

    In a `tf.data` pipeline this is done beside the training step, not in it. The layer takes the
    result in the place of the parents, as an input of shape (None, 6). It belongs to the batch: no
    step behind it may batch, shuffle within, or split.

    Args:
        parents: ragged tensor (batch, None) of int32 or int64.
        forests: what the layer was told about rows with several roots, `"refuse"` or `"sum"`.

    Returns:
        Ragged int32 (batch, None, 6).

    Raises:
        TreeError: as `TreeRecursive` would, InvalidArgumentError in a pipeline.

    Example:
        >>> _, parents = batch([from_sexpr("(S (NP I) sleep)")], Vocabulary(["S"]))
        >>> schedule(parents).shape
        TensorShape([1, None, 6])
    """
    import tensorflow as tf

    from keras_blocks.mechanisms.tree_packed import packed

    if not isinstance(parents, tf.RaggedTensor) or not parents.dtype.is_integer:
        kind = getattr(getattr(parents, "dtype", None), "name", None)
        raise ValueError(
            f"schedule: `parents` must be a ragged tensor (batch, None) of int32 or int64, as "
            f"trees.batch gives it. Received: {type(parents).__name__} of dtype {kind}."
        )
    parents = parents.with_values(tf.cast(parents.values, tf.int64)).with_row_splits_dtype(tf.int64)
    return packed(parents, forests == "sum")


def bucket_by_nodes(nodes_per_batch: int, drop_remainder: bool = False) -> Any:
    """Batches the trees of a `tf.data` pipeline with others of like size, for `Dataset.apply`.

    Trees of like size fill the levels of a batch, and a bound on nodes gives every step about the
    same work: batches of small trees hold many, batches of large ones few.

    An element is one tree: any nest of tensors. Those with a first axis of unknown size, such as
    tokens or features, parents, and labels of nodes, become ragged; a label or a weight of the tree
    becomes dense. The longest of them says how many nodes there are, so that features may be those
    of the leaves alone.

    The order of trees decides which of them meet: the same order gives the same batches. So shuffle
    the trees before this step, and the batches behind it too, since those that are not full come at
    the end. How many batches there are is not known before they are made.

    Args:
        nodes_per_batch: int, the most nodes of a batch. A tree with more is a batch of its own.
        drop_remainder: bool, whether batches that are not full at the end are left out.

    Returns:
        A function from a dataset of trees to one of batches.

    Raises:
        ValueError: a number of nodes that is not positive; when it is applied, elements that are no
            single trees.

    Example:
        >>> import tensorflow as tf
        >>> some = [from_sexpr(text) for text in ("(S a b)", "(S a)", "(S (NP b) c)", "(S b)")]
        >>> tokens, parents = batch(some, Vocabulary.of(some))
        >>> dataset = tf.data.Dataset.from_tensor_slices(((tokens, parents), [0, 1, 2, 3]))
        >>> dataset = dataset.apply(bucket_by_nodes(6))
        >>> [(parents.to_list(), labels.numpy().tolist()) for (_, parents), labels in dataset]
        [([[-1, 0, 1, 0]], [2]), ([[-1, 0], [-1, 0]], [1, 3]), ([[-1, 0, 0]], [0])]
    """
    from keras_blocks.tree_buckets import Buckets

    buckets = Buckets(nodes_per_batch)
    return lambda dataset: buckets.batched(dataset, drop_remainder)


def _array(labels: list[Any]) -> np.ndarray:
    if not labels:
        return np.zeros(0, "int32")
    kinds = {type(label).__name__ for label in labels}
    if kinds == {"str"}:
        return np.array(labels, dtype=object)  # NumPy's own strings lose NULs at the end
    try:
        array = np.array(labels)
    except ValueError:  # vectors of different lengths
        array = np.array(None)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"batch: labels must be all integers, all strings, or all vectors of one length, "
            f"received {', '.join(sorted(kinds))}. Give a vocabulary to number them."
        )
    if array.dtype.kind == "f":
        return array.astype("float32")
    if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
        raise ValueError(
            f"batch: received labels from {array.min()} to {array.max()}, but they must fit int32. "
            f"Give a vocabulary to number them."
        )
    return array.astype("int32")
