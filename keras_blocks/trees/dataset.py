"""Batches of trees for training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from keras_blocks.trees.tree import Tree, Vocabulary


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
        >>> from keras_blocks.trees import Vocabulary, batch, from_sexpr, schedule
        >>> _, parents = batch([from_sexpr("(S (NP I) sleep)")], Vocabulary(["S"]))
        >>> schedule(parents).shape
        TensorShape([1, None, 6])
    """
    import tensorflow as tf

    from keras_blocks.mechanisms.trees.packed_schedule import packed

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
        >>> from keras_blocks.trees import Vocabulary, batch, bucket_by_nodes, from_sexpr
        >>> some = [from_sexpr(text) for text in ("(S a b)", "(S a)", "(S (NP b) c)", "(S b)")]
        >>> tokens, parents = batch(some, Vocabulary.of(some))
        >>> dataset = tf.data.Dataset.from_tensor_slices(((tokens, parents), [0, 1, 2, 3]))
        >>> dataset = dataset.apply(bucket_by_nodes(6))
        >>> [(parents.to_list(), labels.numpy().tolist()) for (_, parents), labels in dataset]
        [([[-1, 0, 1, 0]], [2]), ([[-1, 0], [-1, 0]], [1, 3]), ([[-1, 0, 0]], [0])]
    """
    from keras_blocks.trees.buckets import Buckets

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
