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

from typing import TYPE_CHECKING, Any

from keras_blocks.lazy import member

if TYPE_CHECKING:
    from keras_blocks.contract.tree_rules import validate
    from keras_blocks.trees.dataset import batch, bucket_by_nodes, schedule
    from keras_blocks.trees.parsing import (
        from_ast,
        from_nested,
        from_nltk,
        from_parents,
        from_sexpr,
        from_sexprs,
    )
    from keras_blocks.trees.tree import Tree, Vocabulary

_HOMES = {
    "Tree": "tree",
    "Vocabulary": "tree",
    "from_parents": "parsing",
    "from_nested": "parsing",
    "from_nltk": "parsing",
    "from_ast": "parsing",
    "from_sexpr": "parsing",
    "from_sexprs": "parsing",
    "batch": "dataset",
    "schedule": "dataset",
    "bucket_by_nodes": "dataset",
    "validate": "keras_blocks.contract.tree_rules",
}

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


def __getattr__(name: str) -> Any:
    return member(__name__, name, _HOMES, "tensorflow", {"keras", "tensorflow"})


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
