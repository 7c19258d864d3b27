"""Trees from what people have: parents, nested lists, parses, code, s-expressions."""

from __future__ import annotations

import ast
import operator
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from keras_blocks.errors import TreeError
from keras_blocks.trees.tree import Tree

_CHILDREN = ("children", "childNodes", "getchildren", "keys", "subtrees")
_READERS = {
    "dict": "Write it as nested lists first: [key, child, ...].",
    "xml": "Write the element as nested lists first: [element.tag, child, ...].",
    "ast": "Use trees.from_ast.",
    "nltk": "Use trees.from_nltk.",
    "any": "Write it as nested lists first: [label, child, ...].",
}

_BRACKETS = {
    "-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}",
}  # fmt: skip


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
        TreeError: a list is empty where its label should stand first, or what stands for a label
            has children or keys of its own: a dict, an XML element, an `ast` node, an `nltk.Tree`.

    Example:
        >>> from_nested(["S", ["NP", "I"], "sleep"]).labels
        ('S', 'NP', 'I', 'sleep')
        >>> from_nested([["very", "good"], "film"], inner_label="*").labels
        ('*', '*', 'very', 'good', 'film')
    """

    def parts(item: Any, node: int) -> tuple[Any, Sequence[Any]]:
        if not isinstance(item, list | tuple) or callable(getattr(item, "label", None)):
            return _leaf_label(item, node, "from_nested"), ()
        if inner_label is not None:
            return inner_label, item
        if not item or isinstance(item[0], list | tuple):
            raise TreeError(
                f"node {node} of tree 0 is the list {_short(item)}, which has no label. A list "
                f"holds the label of its node and then the children; for lists of nothing but "
                f"children give `inner_label`."
            )
        return _leaf_label(item[0], node, "from_nested"), item[1:]

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
        if callable(getattr(item, "label", None)):
            return item.label(), list(item)
        return _leaf_label(item, node, "from_nltk"), ()

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


def _leaf_label(item: Any, node: int, reader: str) -> Any:
    """The item itself, if it can be a label; what has parts of its own would lose them."""
    if isinstance(item, str | bytes) or hasattr(item, "dtype"):  # vectors are labels too
        return item
    if callable(getattr(item, "label", None)):
        kind = "nltk"
    elif isinstance(item, Mapping):
        kind = "dict"
    elif isinstance(item, ast.AST):
        kind = "ast"
    elif hasattr(item, "tag"):
        kind = "xml"
    elif hasattr(item, "__iter__") or any(hasattr(item, name) for name in _CHILDREN):
        kind = "any"
    else:
        return item
    raise TreeError(
        f"{reader}: node {node} of tree 0 is {_short(item)} (of type {type(item).__name__}), which "
        f"has children or keys of its own and is no label. {_READERS[kind]}"
    )
