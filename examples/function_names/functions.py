"""The functions of Python's standard library, read without what would give their names away."""

from __future__ import annotations

import ast
import copy
import re
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from keras_blocks import trees

# Lib/test is left out: some distributions do not ship it, and its 26,000 `test_*` functions would
# drown every other verb.
SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test"}
OWN_NAME = "own"
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_TOKEN = re.compile(r"[^\W\d]\w*|\d[\w.]*|''|[-+*/%@&|^<>=!:]+|\S|\n *")


@dataclass(frozen=True)
class Function:
    """A function as the models see it.

    Args:
        module: the top-level module or package it stands in; whole modules are held out.
        name: the name it has in its source.
        verb: the first word of the name: what is to be guessed.
        text: its arguments and body, without docstring, decorators and strings, and with its own
            name replaced wherever it occurs.
        tokens: `text` as a sequence of words, numbers and signs.
        tree: `text` as a tree: a node for each node of the syntax, the words of names below.
    """

    module: str
    name: str
    verb: str
    text: str
    tokens: tuple[str, ...]
    tree: trees.Tree


def words(identifier: str) -> list[str]:
    """The words of a snake_case or camelCase name.

    Example:
        >>> words("_getHTTPHeader_v2")
        ['get', 'http', 'header', 'v', '2']
    """
    return [word.lower() for word in _WORD.findall(identifier)]


def named_functions(root: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every named function below a folder with its top-level module, in a fixed order."""
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if SKIPPED_FOLDERS & set(parts):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Old modules have invalid escapes in strings.
                tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue  # lib2to3 and others ship files that are meant not to parse.
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _has_verb(node.name):
                yield parts[0].removesuffix(".py"), node


def read_functions(verbs: int, root: Path | None = None) -> list[Function]:
    """The functions whose name starts with one of the verbs that the most modules use.

    Counting modules, not functions, keeps out the private habits of one large package. Of
    functions with the same text only the first is kept, so no test function was trained on.

    Args:
        verbs: int, how many verbs.
        root: where the modules lie; None is Python's standard library.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    found = [(module, node, words(node.name)[0]) for module, node in named_functions(root)]
    users = Counter(verb for _, verb in sorted({(module, verb) for module, _, verb in found}))
    wanted = set(sorted(users, key=lambda verb: (-users[verb], verb))[:verbs])
    by_text: dict[str, Function] = {}
    for module, node, verb in found:
        if verb in wanted and (function := _anonymous(module, node, verb)):
            by_text.setdefault(function.text, function)
    return list(by_text.values())


def _has_verb(name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return not dunder and bool(words(name)) and words(name)[0].isalpha()


def _anonymous(module: str, node: ast.AST, verb: str) -> Function | None:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    if not body:
        return None
    bare = copy.copy(node)
    bare.name, bare.body, bare.decorator_list, bare.returns = "_", body, [], None
    hidden = _Anonymizer(words(node.name)).visit(copy.deepcopy(bare))
    text = ast.unparse(hidden)
    tokens = [part for token in _TOKEN.findall(text) for part in (words(token) or [token])]
    return Function(module, node.name, verb, text, tuple(tokens), trees.from_nested(nested(hidden)))


def nested(node: ast.AST) -> list:
    """A syntax tree as nested lists: the kind of a node, then its children and words.

    `trees.from_ast` keeps names whole; here `line_count` becomes the leaves `line` and `count`, so
    that words which were never seen together are still known one by one.

    Example:
        >>> nested(ast.parse("line_count = 7").body[0])
        ['Assign', ['Name', 'line', 'count'], ['Constant', 'int']]
    """
    if isinstance(node, ast.Constant):
        return ["Constant", type(node.value).__name__]
    members: list = [type(node).__name__]
    for _, value in ast.iter_fields(node):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                members += words(item)
            elif isinstance(item, ast.AST) and not isinstance(item, ast.expr_context):
                members.append(nested(item))
    return members


class _Anonymizer(ast.NodeTransformer):
    """Replaces a name by `own` in every identifier, and every string by an empty one.

    `self._set_title(...)` inside `set_title` becomes `self.own(...)`.
    """

    def __init__(self, name: list[str]):
        self.name = name

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str | bytes):
            node.value = type(node.value)()
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        # In a syntax tree every string but a constant's value is an identifier.
        for field, value in ast.iter_fields(node):
            if isinstance(value, str):
                setattr(node, field, self.hide(value))
            elif isinstance(value, list) and value and isinstance(value[0], str):
                setattr(node, field, [self.hide(item) for item in value])
        return super().generic_visit(node)

    def hide(self, identifier: str) -> str:
        parts, length = words(identifier), len(self.name)
        starts = range(len(parts) - length + 1)
        hits = [i for i in starts if parts[i : i + length] == self.name]
        if not hits:
            return identifier
        before, after = parts[: hits[0]], parts[hits[0] + length :]
        return self.hide("_".join([*before, OWN_NAME, *after]))
